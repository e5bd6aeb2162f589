"""A cache folder in the shared formats, and a client of it whose daemon is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import forebay
from support.folders import FolderWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> FolderWriter:
    return FolderWriter(tmp_path / "cache")


@pytest.fixture
def client(
    folder: FolderWriter, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[forebay.Client]:
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(folder.path))
    with forebay.Client(f"unix:{short_dir}/down.sock", timeout_s=0.1) as client:
        yield client
