"""Users' modules, and the names of mmdet where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch")
pytest.importorskip("mmengine")

MODULE = """
from torch import nn
from {builder} import NECKS

@NECKS.register_module()
class {name}(nn.Module):
    pass
"""
SAY = """
import sys
from forebay_trainer.config import load_config
load_config(sys.argv[1])
from forebay_trainer.models.builder import NECKS
print(NECKS.get(sys.argv[2]).__module__)
import mmdet.models.builder, forebay_trainer.models.builder as ours
print(mmdet.models.builder is ours, ours.__spec__.name)
"""


def loaded(folder: Path, imports: str, name: str) -> list[str]:
    """Return what another Python says of a class after it has read a configuration."""
    config = folder / "a.py"
    config.write_text(f"custom_imports = dict(imports=[{imports!r}], allow_failed_imports=False)\n")
    done = subprocess.run(  # noqa: S603  # it changes sys.modules for good
        [sys.executable, "-c", SAY, str(config), name],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return done.stdout.splitlines()


def test_a_module_beside_the_configuration(tmp_path: Path) -> None:
    module = MODULE.format(builder="mmdet.models.builder", name="MyNeck")
    (tmp_path / "my_neck.py").write_text(module)

    assert loaded(tmp_path, "my_neck", "MyNeck") == [
        "my_neck",
        "True forebay_trainer.models.builder",
    ]


def test_a_users_module_in_a_folder_of_upstreams_name(tmp_path: Path) -> None:
    """With the stray ``.py`` of upstream's tutorial, and a class that we have under that name."""
    necks = tmp_path / "mmdet/models/necks"
    necks.mkdir(parents=True)
    (necks / "augfpn.py").write_text(MODULE.format(builder="..builder", name="AugFPN"))

    said = loaded(tmp_path, "mmdet.models.necks.augfpn.py", "AugFPN")

    assert said == ["mmdet.models.necks.augfpn", "True forebay_trainer.models.builder"]


def test_without_such_a_file_upstreams_name_is_our_module(tmp_path: Path) -> None:
    said = loaded(tmp_path, "mmdet.models.necks", "AugFPN")

    assert said[0].startswith("forebay_trainer.models.necks.")


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    from forebay_trainer.config import ConfigError, load_config

    config = tmp_path / "a.py"
    config.write_text("custom_imports = dict(imports=['not_there'])\n")

    with pytest.raises(ConfigError, match="custom_imports: No module named 'not_there'"):
        load_config(config)


def test_a_failure_may_be_allowed(tmp_path: Path) -> None:
    from forebay_trainer.config import load_config

    config = tmp_path / "a.py"
    config.write_text(
        "custom_imports = dict(imports=['not_there'], allow_failed_imports=True)\nwork_dir = 'w'\n"
    )

    assert load_config(config).work_dir == "w"
