"""``forebay exec``: programs that know nothing of Forebay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import torch

import forebay
from support.below import environment_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

_EXEC = (sys.executable, "-m", "forebay", "exec")


def run(
    daemon: DaemonProcess,
    program: str,
    *options: str,
    cwd: Path | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run *program* below ``forebay exec``."""
    return subprocess.run(  # noqa: S603  # our own command
        [*_EXEC, *options, "--", sys.executable, "-W", "ignore", "-c", program],
        cwd=cwd,
        env=environment_below(daemon, **environment),
        capture_output=True,
        text=True,
        check=False,
    )


def output(*args: object, **kwargs: object) -> str:
    done = run(*args, **kwargs)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["petrel_client", "aoss_client"])
def test_sdk_is_there(plugged: DaemonProcess, bucket: Bucket, name: str) -> None:
    bucket.put("k", b"x")

    told = output(
        plugged,
        f"from {name}.client import Client\n"
        f"from {name}.mixed_client import MixedClient\n"
        f"from {name}.common.exception import ObjectNotFoundError, InvalidS3UriError\n"
        f"print(Client('~/petreloss.conf').Get({bucket.url('k')!r}), MixedClient is Client)",
    )

    assert told == "b'x' True\n"


def test_sdk_is_not_there_without_exec(plugged: DaemonProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import forebay, petrel_client"],
        env=environment_below(plugged),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "No module named 'petrel_client'" in done.stderr


def test_mmcv_needs_no_import(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    url = bucket.url("k")

    told = output(
        plugged,
        "import mmcv\n"
        f"print([mmcv.FileClient(b).get({url!r}).tobytes() for b in ('petrel', 'aws')])",
    )

    assert told == "[b'x', b'x']\n"


def test_mmengine_needs_no_import(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    url = bucket.url("k")

    told = output(
        plugged,
        "from mmengine import fileio\n"
        f"print(fileio.get({url!r}), fileio.get({url!r}, backend_args=dict(backend='aws')))",
    )

    assert told == "b'x' b'x'\n"


@pytest.mark.parametrize("name", ["mmcv", "mmengine"])
def test_plugs_may_also_be_imported(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    bucket.put("k", b"x")

    told = output(
        plugged,
        f"import forebay.{name}, mmcv\n"
        "from mmengine import fileio\n"
        f"import forebay.mmengine, forebay.mmcv\n"
        f"print(fileio.get('data/k'), mmcv.FileClient('disk').get('data/k'))",
        "--path-mapping",
        f"data/={bucket.url()}",
        cwd=tmp_path,
    )

    assert told == "b'x' b'x'\n"


def test_upstreams_own_petrel_backend_works_on_the_stand_in(
    plugged: DaemonProcess, bucket: Bucket
) -> None:
    url = bucket.url("dir")

    told = output(
        plugged,
        "from mmengine.fileio.backends import PetrelBackend\n"
        "backend = PetrelBackend()\n"
        f"backend.put(b'x', {url!r} + '/k')\n"
        f"print(backend.get({url!r} + '/k'), backend.isdir({url!r}), backend.isfile({url!r}))\n"
        f"print(list(backend.list_dir_or_file({bucket.url()!r}, recursive=True)))\n"
        f"backend.rmtree({url!r})\n"
        f"print(backend.exists({url!r}), backend.get({url!r} + '/k'))",
    )

    assert told == "b'x' True False\n['dir', 'dir/k']\nFalse None\n"


# --- mapped local paths: seed 003 ----------------------------------------------------------------

MAPPED = """
import mmcv
from mmengine import fileio
print(mmcv.FileClient('disk').get('data/coco/a.json'), fileio.get('./data/coco/a.json'))
print(mmcv.load('data/coco/a.json'), fileio.load('data/coco/a.json'))
with mmcv.FileClient(backend='disk').get_local_path('data/coco/a.json') as path:
    print(open(path).read())
print(sorted(mmcv.FileClient('disk').list_dir_or_file('data/coco', list_dir=False)))
print(mmcv.FileClient('disk').isfile('data/coco/a.json'), fileio.exists('data/coco/none'))
print(mmcv.FileClient('petrel').get('data/coco/a.json').tobytes())
other = mmcv.FileClient('petrel', path_mapping={'data/coco/': OTHER})
print(other.get('data/coco/a.json').tobytes())
print(mmcv.FileClient('disk').get('data/plain.txt'), fileio.get('data/plain.txt'))
mmcv.dump([2], 'data/coco/new.json')
fileio.put(b'plain', 'data/new.txt')
fileio.copyfile('data/coco/a.json', 'data/copied.json')
fileio.copyfile_from_local('data/plain.txt', 'data/coco/plain.txt')
print(open('data/new.txt').read(), open('data/copied.json').read())
"""


@pytest.mark.parametrize("how", ["option", "variable"])
def test_mapped_local_paths_are_objects_and_others_are_untouched(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path, how: str
) -> None:
    bucket.put("coco/a.json", b"[1]")
    bucket.put("other/a.json", b"[9]")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plain.txt").write_text("plain")
    mapping = f"data/coco/={bucket.url('coco/')}"
    options = ("--path-mapping", mapping) if how == "option" else ()
    environment = {"FOREBAY_PATH_MAPPING": mapping} if how == "variable" else {}

    told = output(
        plugged,
        f"OTHER = {bucket.url('other/')!r}\n{MAPPED}",
        *options,
        cwd=tmp_path,
        **environment,
    )

    assert told.splitlines() == [
        "b'[1]' b'[1]'",
        "[1] [1]",
        "[1]",
        "['a.json']",
        "True False",
        "b'[1]'",
        "b'[9]'",
        "b'plain' b'plain'",
        "plain [1]",
    ]
    assert not (tmp_path / "data" / "coco").exists()
    forebay.Client().flush()
    assert bucket.get("coco/new.json") == b"[2]"
    assert bucket.get("coco/plain.txt") == b"plain"


def test_options_go_before_the_environment(plugged: DaemonProcess, bucket: Bucket) -> None:
    told = output(
        plugged,
        "import os; print(os.environ['FOREBAY_PATH_MAPPING'])",
        "--path-mapping",
        f"a/={bucket.url('one/')}",
        FOREBAY_PATH_MAPPING=f"a/={bucket.url('two/')},b/={bucket.url('three/')}",
    )

    assert json.loads(told) == {"a/": bucket.url("one/"), "b/": bucket.url("three/")}


CHECKPOINTS = """
import mmcv.runner, torch
from mmengine.runner.checkpoint import CheckpointLoader
for load in (mmcv.runner.CheckpointLoader.load_checkpoint, CheckpointLoader.load_checkpoint):
    for path in ('ckpts/a.pth', 'http://download.example/v2/a.pth', S3, 'plain.pth'):
        print(load(path, map_location='cpu')['w'].tolist())
"""


def test_checkpoints_of_mapped_paths_and_urls_come_from_ceph(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth")
    torch.save({"w": torch.zeros(1)}, tmp_path / "plain.pth")
    bucket.put("weights/a.pth", (tmp_path / "a.pth").read_bytes())

    told = output(
        plugged,
        f"S3 = {bucket.url('weights/a.pth')!r}\n{CHECKPOINTS}",
        "--path-mapping",
        f"ckpts/={bucket.url('weights/')}",
        "--path-mapping",
        f"http://download.example/v2/={bucket.url('weights/')}",
        cwd=tmp_path,
    )

    lines = [line for line in told.splitlines() if line.startswith("[")]
    assert lines == ["[1.0]", "[1.0]", "[1.0]", "[0.0]"] * 2


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of files."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "k.txt").write_text("web")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_urls_are_cached_by_name_and_untouched_otherwise(plugged: DaemonProcess, web: str) -> None:
    told = output(
        plugged,
        "import mmcv\n"
        f"print(mmcv.FileClient('forebay').get('{web}/k.txt').tobytes())\n"
        f"print(mmcv.FileClient.infer_client(uri='{web}').get('{web}/k.txt'))",
    )

    assert told == "b'web'\nb'web'\n"
    assert forebay.Client(plugged.address).stat(f"{web}/k.txt").cached_bytes == 3


# --- fsspec and Python's own -------------------------------------------------------------------


def test_s3_of_fsspec_is_ours_if_asked(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    program = (
        "import fsspec\n"
        "s3 = fsspec.filesystem('s3')\n"
        f"print(type(s3).__name__, s3.cat({bucket.url('k')!r}))"
    )

    assert output(plugged, program, "--s3") == "ForebayS3FileSystem b'x'\n"
    assert run(plugged, program).stdout != "ForebayS3FileSystem b'x'\n"


def test_a_hidden_sitecustomize_still_runs(plugged: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.was_here = True\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    told = output(plugged, "import sys, petrel_client; print(sys.was_here)", PYTHONPATH=path)

    assert told == "True\n"


def test_children_of_children_are_below_too(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    child = f"import mmcv; print(mmcv.FileClient('aws').get({bucket.url('k')!r}).tobytes())"

    told = output(
        plugged,
        f"import subprocess, sys; subprocess.run([sys.executable, '-Wignore', '-c', {child!r}])",
    )

    assert told == "b'x'\n"


def test_python_starts_as_fast_as_before(plugged: DaemonProcess) -> None:
    told = output(plugged, "import sys; print('grpc' in sys.modules, 'forebay' in sys.modules)")

    assert told == "False False\n"


def test_the_current_folder_stays_on_the_path(plugged: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "run.py").write_text("import beside; print(beside.VALUE)\n")

    done = subprocess.run(  # noqa: S603  # our own command
        [*_EXEC, "--", sys.executable, "tools/run.py"],
        cwd=tmp_path,
        env=environment_below(plugged, PYTHONPATH=f":{os.environ.get('PYTHONPATH', '')}"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "1\n", done.stderr


def test_a_reloaded_module_is_plugged_again(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")

    told = output(
        plugged,
        "import importlib, mmcv.fileio.file_client as m\n"
        "m = importlib.reload(m)\n"
        f"print(m.FileClient('aws').get({bucket.url('k')!r}).tobytes())",
    )

    assert told == "b'x'\n"


# --- the command -------------------------------------------------------------------------------


def test_exit_code_and_streams_are_the_programs(plugged: DaemonProcess) -> None:
    done = run(plugged, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_arguments_are_passed_as_they_are(plugged: DaemonProcess) -> None:
    done = subprocess.run(  # noqa: S603  # our own command
        [*_EXEC, sys.executable, "-c", "import sys; print(sys.argv[1:])", "--help", "--s3", "-x"],
        env=environment_below(plugged),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "['--help', '--s3', '-x']\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--", "there-is-no-such-program"], 127, "there-is-no-such-program: No such file"),
        (["--path-mapping", "data/coco", "--", "true"], 2, "'data/coco': "),
        (["--path-mapping", "data=elsewhere", "--", "true"], 2, "leads to no URI"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_said(
    plugged: DaemonProcess, arguments: list[str], code: int, text: str
) -> None:
    done = subprocess.run(  # noqa: S603  # our own command
        [*_EXEC, *arguments],
        env=environment_below(plugged),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code
    assert text in done.stderr


def test_a_daemon_that_is_down_is_said_at_once(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603  # our own command
        [*_EXEC, "--address", f"unix:{tmp_path}/none.sock", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert "forebay serve" in done.stderr
