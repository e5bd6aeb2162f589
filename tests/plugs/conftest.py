"""What the tests of the plugs share: frameworks that talk to a daemon in front of Ceph."""

from __future__ import annotations

import sys
import tempfile
import warnings
from typing import TYPE_CHECKING

import pytest

from support.below import STAND_INS
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket, Ceph

# Before anything imports mmcv.
sys.path.append(str(STAND_INS))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmcv
    import mmengine.fileio.io as mmengine_io
    from mmengine.fileio import FileClient as MMEngineFileClient

    import forebay
    import forebay.mmcv
    import forebay.mmengine
    from forebay.fsspec import ForebayFileSystem


@pytest.fixture(scope="session")
def plugs_daemon(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon in front of Ceph for all tests that do nothing to it but read and write."""
    folder = tmp_path_factory.mktemp("plugs")
    with tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True) as sockets:
        daemon = DaemonProcess(
            cache_dir=folder / "cache",
            address=f"unix:{sockets}/plugs.sock",
            log_file=folder / "daemon.log",
            arguments=("--max-bytes", "1GB", "--endpoint-url", ceph.endpoint_url),
            env={**ceph.env(), "FOREBAY_REQUEST_LINGERS_S": "0.05"},
        )
        daemon.start()
        yield daemon
        daemon.kill9()


@pytest.fixture
def plugged(
    plugs_daemon: DaemonProcess, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DaemonProcess]:
    """A daemon that the frameworks find by themselves."""
    monkeypatch.setenv("FOREBAY_ADDRESS", plugs_daemon.address)
    forget_clients()
    yield plugs_daemon
    forget_clients()
    with forebay.Client(plugs_daemon.address) as client:
        client.flush(bucket.url())  # before the bucket goes


def forget_clients() -> None:
    """Drop the file clients that the frameworks keep for ever."""
    mmcv.FileClient._instances.clear()
    MMEngineFileClient._instances.clear()
    mmengine_io.backend_instances.clear()
    ForebayFileSystem.clear_instance_cache()
