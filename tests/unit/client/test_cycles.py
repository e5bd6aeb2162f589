"""Views in cycles that are garbage: CPython before 3.12.7 may crash on them (gh-77894)."""

from __future__ import annotations

import gc
import pickle
from typing import TYPE_CHECKING

import pytest

from forebay._writes import as_view
from support.folders import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    import forebay
    from support.folders import FolderWriter


class DecodeError(Exception):
    """What a function given to apply() raises."""


def raise_and_keep() -> None:
    """Raise an error that its own traceback refers to."""
    errors = []
    try:
        raise DecodeError
    except DecodeError as error:
        errors.append(error)
        raise


def decode(view: memoryview) -> None:
    header = view[:4]
    raise_and_keep()
    del header


def decode_by_another_exporter(view: memoryview) -> None:
    header = memoryview(pickle.PickleBuffer(view))[:4]
    raise_and_keep()
    del header


def write(data: memoryview) -> None:
    view = as_view(data)
    raise_and_keep()
    del view


@pytest.mark.parametrize("function", [decode, decode_by_another_exporter])
def test_function_that_fails_with_a_slice_in_its_traceback(
    folder: FolderWriter, client: forebay.Client, function: Callable[[memoryview], None]
) -> None:
    folder.put("a", b"content")
    for _ in range(5):
        with pytest.raises(DecodeError):
            client.apply(f"{PREFIX}/a", function)
        gc.collect()
    assert client.apply(f"{PREFIX}/a", bytes) == b"content"


def test_write_that_fails_with_a_view_in_its_traceback() -> None:
    for _ in range(5):
        with pytest.raises(DecodeError):
            write(memoryview(bytearray(100)))
        gc.collect()
