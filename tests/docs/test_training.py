"""``docs/training.md``: what it shows runs as it stands, and what it lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from forebay_trainer import cli, registry
from forebay_trainer.check import check_config, check_files
from forebay_trainer.config import ConfigError, load_config, normalized
from support.typed import Typist

if TYPE_CHECKING:
    from support.daemon import DaemonProcess

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FILES = {
    match[1]: program
    for program in PROGRAMS
    if (match := re.match(r"# (\w+\.py): ", program)) is not None
}
TYPED = re.compile(
    r"^```python\n(?P<program>.*?)^```|^    (?P<command>(?:forebay|python|torchrun) [^\n]*)$",
    re.DOTALL | re.MULTILINE,
)
# The page's runs are short; these end after one look at each image, which only the first evaluates.
SHORT = (
    " --cfg-options runner.max_epochs=1 data.train.times=1 model.train_cfg.rcnn.sampler.num=8 "
    "model.train_cfg.rpn_proposal.max_per_img=16"
)
AS_TYPED = "forebay train shapes.py --seed 1"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.usefixtures("datasets_bucket")
def test_a_reader_who_types_it_all_gets_what_it_says(
    desk: Path, daemon: DaemonProcess, ceph_client: Any
) -> None:
    typist = Typist(desk, {"FOREBAY_ADDRESS": daemon.address})
    lines = 0
    for match in TYPED.finditer(PAGE):
        if match["command"]:
            line = match["command"].replace("epoch_4", "epoch_1")
            if re.search(r"forebay train|forebay_trainer\.train", line):
                line += SHORT if line == AS_TYPED else f"{SHORT} --no-validate"
            typist.run(line)
            lines += 1
        elif match["program"] not in FILES.values():
            (desk / "program.py").write_text(match["program"])
            typist.run("python program.py")

    pages = ceph_client.get_paginator("list_objects_v2").paginate(Bucket="datasets")
    keys = {found["Key"] for page in pages for found in page["Contents"]}
    runs = {f"runs/{name}/epoch_1.pth" for name in ("shapes", "tuned", "two", "mine", "api")}
    assert runs <= keys
    assert "results/shapes.segm.json" in keys
    assert (desk / "work_dirs/local/latest.pth").exists()
    assert (desk / "shown/000.jpg").exists()
    assert len(list((desk / "browse").iterdir())) == 4
    assert lines > 12


def test_supported_parts_are_the_registered_ones() -> None:
    supported, _, _ = PAGE.partition("## What is supported")[2].partition("What is not there")
    named = set(re.findall(r"\b[A-Z]\w+", supported))
    parts = {
        name
        for each in vars(registry).values()
        if isinstance(each, registry.Registry) and each is not registry.OPTIMIZERS
        for name, part in each.module_dict.items()
        if part.__module__.startswith("forebay_trainer.")  # others' tests register theirs
    }
    # Our own: bases of others, what all have, and what goes by the names of schedules.
    inner = {"TwoStageDetector", "Compose", "IterTimerHook", "DefaultOptimizerConstructor"}
    inner |= {"BboxOverlaps2D"} | {name for name in parts if name.endswith("LrUpdaterHook")}
    assert parts - inner - named == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model.neck.type": "FPM"},
            "model.neck.type: model 'FPM' is not known; did you mean FPN?",
        ),
        ({"model.type": "RetinaNet"}, "model.type: model 'RetinaNet' is not known"),
        (
            {"model.backbone.depht": 50},
            "model.backbone.depht: ResNet has no such argument; did you mean depth?",
        ),
        (
            {"runner": {"type": "IterBasedRunner", "_delete_": True}},
            "IterBasedRunner needs max_iters",
        ),
        ({"evaluation.metric": "mAP"}, "has bbox, segm, proposal, proposal_fast, not 'mAP'"),
    ],
)
def test_mistakes_are_told_as_the_page_has_it(
    options: dict[str, Any], message: str, desk: Path
) -> None:
    config = normalized(load_config(desk / "shapes.py", options))

    with pytest.raises(ConfigError) as error:
        check_config(config, ["train", "val"])

    assert message in str(error.value)
    assert message in PAGE


def test_a_misspelled_key_is_told_as_the_page_has_it(desk: Path) -> None:
    config = normalized(load_config(desk / "shapes.py", {"lr_confg": {"step": 8}}))

    (warning,) = check_config(config, ["train", "val"])

    assert warning in PAGE


def test_weights_that_are_nowhere_are_told_as_the_page_has_it(desk: Path) -> None:
    url = "https://download.openmmlab.com/a/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth"
    config = normalized(load_config(desk / "shapes.py", {"load_from": url}))

    with pytest.raises(ConfigError) as error:
        check_files(config, ["train", "val"])

    page = " ".join(PAGE.split())
    for part in str(error.value).replace("/a/", "/…/").partition(", or put it at ")[:2]:
        assert part in page


@pytest.mark.parametrize("name", ["train", "test", "infer", "browse", "config", "convert"])
def test_options_of_a_command_are_listed(name: str) -> None:
    command = getattr(cli, f"{name}_command")
    command = command.commands["cityscapes"] if name == "convert" else command
    (row,) = re.findall(rf"^\| `forebay {name}[^|]*\|(.*)\|$", PAGE, re.MULTILINE)

    options = {option for each in command.params for option in each.opts if option[:2] == "--"}

    assert set(re.findall(r"--[a-z-]+", row)) == options - {"--cfg-options", "--path-mapping"}
