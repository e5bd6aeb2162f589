"""fsspec's own suite for implementations, against a real daemon in front of the real Ceph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess


class ForebayFixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self, plugged: DaemonProcess) -> Any:
        return fsspec.filesystem("forebay", address=plugged.address)

    @pytest.fixture
    def fs_path(self, bucket: Bucket) -> str:
        return bucket.name

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False  # as in any object store


class TestCopy(AbstractCopyTests, ForebayFixtures):
    pass


class TestGet(AbstractGetTests, ForebayFixtures):
    pass


class TestPut(AbstractPutTests, ForebayFixtures):
    pass


class TestPipe(AbstractPipeTests, ForebayFixtures):
    pass


class TestOpen(AbstractOpenTests, ForebayFixtures):
    pass
