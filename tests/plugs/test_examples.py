"""The programs in ``examples/`` do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.below import environment_below

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "mmcv_client": ["equal: True", "names: train2017 train2017/1.png"],
    "mmengine_runner": ["checkpoints: 2"],
    "petrel_program": ["read: b'hello'", "names: hello.txt", "missing: None"],
    "fsspec_files": ["read: b'a,b\\n1,2\\n'", "names: one table.csv two"],
    "torch_loader": ["batches: [(4, 4), (4, 4)]", "loaded: [1.0, 1.0, 1.0]"],
    "lmdb_backend": ["read: b'bytes of an image'"],
}


def test_every_example_is_tested() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(SAID)


@pytest.mark.parametrize("name", SAID)
def test_example(name: str, plugged: DaemonProcess, bucket: Bucket) -> None:
    below = ["-m", "forebay", "exec", "--", sys.executable] if name == "petrel_program" else []
    done = subprocess.run(  # noqa: S603  # our own programs
        [sys.executable, *below, str(EXAMPLES / f"{name}.py"), bucket.url("demo/")],
        env=environment_below(plugged, PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [line for line in SAID[name] if line not in done.stdout.splitlines()] == []
