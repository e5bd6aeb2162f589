"""What the tests of deployments share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ports import free_address

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A folder that other users may pass through."""
    with tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def address() -> str:
    """An address whose port is free."""
    return free_address()
