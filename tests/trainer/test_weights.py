"""Checkpoints: found, read without running what they hold, and put into models."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from forebay_trainer import weights  # noqa: E402

MODEL = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,)}


def model() -> Any:
    return torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(1, 2, 3)))


def save(path: Path, **content: Any) -> str:
    torch.save(content, path)
    return str(path)


def test_meta_as_upstream_writes_it_is_read(tmp_path: Path) -> None:
    meta = {"CLASSES": ("a",), "best": np.float64(0.5), "seed": np.int64(3), "sizes": np.arange(3)}
    path = save(tmp_path / "a.pth", state_dict=OrderedDict(w=torch.ones(2)), meta=meta)

    read = weights.read_checkpoint(path)

    assert read["meta"]["CLASSES"] == ("a",)
    assert read["meta"]["best"] == 0.5
    assert read["meta"]["sizes"].tolist() == [0, 1, 2]


def test_arrays_of_the_other_numpy_are_read(tmp_path: Path) -> None:
    """Its pickles call the same functions by other names, which have as many letters as zeros."""
    path = Path(save(tmp_path / "a.pth", meta={"sizes": np.arange(3)}))
    torch.save({"meta": {"sizes": np.arange(3)}}, path, _use_new_zipfile_serialization=False)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    data = path.read_bytes()
    swapped = data.replace(new, old) if new in data else data.replace(old, new)
    path.write_bytes(swapped)

    assert swapped != data
    assert weights.read_checkpoint(str(path))["meta"]["sizes"].tolist() == [0, 1, 2]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run by a checkpoint",))


def test_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.pth", state_dict={}, meta={"evil": Evil()})

    with pytest.raises(weights.WeightsError, match=r"may be loaded: .*print"):
        weights.read_checkpoint(path)
    assert capsys.readouterr().out == ""
    torch.load(path, weights_only=False)
    assert capsys.readouterr().out == "run by a checkpoint\n"


@pytest.mark.parametrize(
    "content",
    [pickle.dumps([1]), b"\xff\xd8\xff\xe0 a photo", b"<html>", b""],
    ids=["pickle", "photo", "page", "empty"],
)
def test_what_is_no_checkpoint_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)

    with pytest.raises(weights.WeightsError, match=r"a\.pth (is not|holds no)") as caught:
        weights.read_checkpoint(str(path))
    assert "PyTorch 2.6" not in str(caught.value)  # torch's advice is to run what is in it


def test_weights_below_a_prefix_and_of_dataparallel(tmp_path: Path) -> None:
    state = {f"module.backbone.{name}": torch.ones(shape) for name, shape in MODEL.items()}
    path = save(tmp_path / "a.pth", state_dict=state)
    loaded = model()

    weights.load_checkpoint(loaded, path, "backbone.")

    assert loaded.conv.weight.eq(1).all()


def test_what_does_not_fit_is_skipped_and_listed() -> None:
    loaded = model()
    before = loaded.conv.weight.clone()
    state = {"conv.weight": torch.ones(4, 1, 3, 3), "head.bias": torch.ones(1)}

    report = weights.load_state(loaded, state)

    assert report.missing == ("conv.bias",)
    assert report.unexpected == ("head.bias",)
    assert report.mismatched == ("conv.weight (4, 1, 3, 3) for (2, 1, 3, 3)",)
    assert loaded.conv.weight.equal(before)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", state_dict={"other.weight": torch.ones(1)})

    with pytest.raises(weights.WeightsError, match="no weight that fits into Sequential"):
        weights.load_checkpoint(model(), path)


def test_the_latest_is_told_by_its_number_where_there_are_no_links(tmp_path: Path) -> None:
    for name in ("epoch_9.pth", "epoch_10.pth", "best_bbox_mAP_epoch_11.pth", "other.txt"):
        (tmp_path / name).touch()

    assert weights.locate(f"{tmp_path}/latest.pth") == f"{tmp_path}/epoch_10.pth"
    assert weights.latest_checkpoint(f"{tmp_path}/nowhere") is None


def test_a_download_is_taken_from_torchs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    there = tmp_path / "hub/checkpoints/resnet50-0676ba61.pth"

    with pytest.raises(weights.WeightsError, match=f"or put it at {there}"):
        weights.locate("torchvision://resnet50")
    there.parent.mkdir(parents=True)
    there.touch()

    assert weights.locate("torchvision://resnet50") == str(there)
