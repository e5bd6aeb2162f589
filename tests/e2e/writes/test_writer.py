"""``open(path, "w…" | "x…")``: published when closed, whole, or not at all."""

from __future__ import annotations

import gc
import io
import random
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from support.sizes import some_bytes
from support.spooled import wait_until

if TYPE_CHECKING:
    import forebay
    from e2e.conftest import FileOrigin

MIB = 1 << 20
SIZES = {"small": 5000, "large": 12 * MIB}


def used_bytes(client: forebay.Client) -> int:
    return int(client.stats().raw["spool"]["spool_used_bytes"])


def pieces_of(data: bytes, seed: int) -> list[bytes]:
    """Cut *data* into pieces of very different sizes."""
    dice = random.Random(seed)
    pieces, at = [], 0
    while at < len(data):
        size = int(10 ** dice.uniform(0, 6.7))
        pieces.append(data[at : at + size])
        at += size
    return pieces


# --- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 9 * MIB, 80 * MIB + 7])
def test_pieces_of_all_sizes_become_one_object(
    either: forebay.Client, files: FileOrigin, size: int
) -> None:
    data = some_bytes(size)
    with either.open(files.url("a"), "wb") as file:
        for piece in pieces_of(data, seed=size):
            assert file.write(piece) == len(piece)
        assert file.tell() == size

    with either.open(files.url("a")) as written:
        assert written.read() == data
    either.flush()
    assert (files.folder / "a").read_bytes() == data


def test_it_is_a_file_to_be_written_in_order(shared: forebay.Client, files: FileOrigin) -> None:
    with shared.open(files.url("a"), "bw") as file:
        assert (file.writable(), file.readable(), file.seekable()) == (True, False, False)
        assert (file.name, file.mode) == (files.url("a"), "wb")
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        with pytest.raises(io.UnsupportedOperation):
            file.read()
        with pytest.raises(TypeError, match="text"):
            file.write("text")  # type: ignore[arg-type]
        file.writelines([b"a", b"b"])

    assert shared.get(files.url("a")) == b"ab"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")
    file.close()


@pytest.mark.parametrize("mode", ["w", "wt", "tw"])
def test_text_is_encoded_and_decoded(either: forebay.Client, files: FileOrigin, mode: str) -> None:
    text = "grün\n" * 500_000
    file: Any
    with either.open(files.url("a"), mode) as file:
        file.write(text)
    with either.open(files.url("b"), mode, encoding="latin-1") as file:
        file.write(text)

    assert either.get(files.url("a")) == text.encode()
    assert either.get(files.url("b")) == text.encode("latin-1")
    with either.open(files.url("a"), "r") as file:
        assert file.readline() == "grün\n"
    with either.open(files.url("b"), "rt", encoding="latin-1") as file:
        assert file.read() == text


@pytest.mark.parametrize("mode", ["", "b", "r+b", "wb+", "+", "rw", "ww", "wbt", "bb", "z", "wz"])
def test_mode_that_is_none_is_refused(shared: forebay.Client, files: FileOrigin, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        shared.open(files.url("a"), mode)


def test_those_who_write_files_can_write_these(shared: forebay.Client, files: FileOrigin) -> None:
    array = np.arange(1_000_000)
    with shared.open(files.url("a.npy"), "wb") as file:
        np.save(file, array)
    with (
        shared.open(files.url("a.zip"), "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        archive.writestr("one", "1")
        archive.writestr("two", b"2" * MIB)

    with shared.open(files.url("a.npy")) as read:
        assert (np.load(read) == array).all()
    with shared.open(files.url("a.zip")) as read, zipfile.ZipFile(read) as archive:
        assert archive.read("two") == b"2" * MIB


def test_torch_saves_into_it(either: forebay.Client, files: FileOrigin) -> None:
    torch = pytest.importorskip("torch")
    state: Any = {"weights": torch.rand(3_000_000), "step": 7}
    with either.open(files.url("a.pth"), "wb") as file:
        torch.save(state, file)

    with either.open(files.url("a.pth")) as read:
        loaded = torch.load(read, weights_only=True)
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], state["weights"])


def test_two_threads_write_one_file(either: forebay.Client, files: FileOrigin) -> None:
    with either.open(files.url("a"), "wb") as file, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: file.write(bytes([number]) * 50_000), range(200)))

    data = either.get(files.url("a"))
    assert len(data) == 200 * 50_000
    assert {data[at : at + 50_000] for at in range(0, len(data), 50_000)} == {
        bytes([number]) * 50_000 for number in range(200)
    }


# --- nothing before its time ------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_readers_have_the_old_object_until_it_is_closed(
    either: forebay.Client, files: FileOrigin, size: int
) -> None:
    either.put(files.url("a"), b"old")
    with either.open(files.url("a"), "wb") as file, either.open(files.url("new"), "wb") as new:
        for writer in (file, new):
            writer.write(some_bytes(size))
            writer.flush()
        assert either.get(files.url("a")) == b"old"
        assert not either.exists(files.url("new"))

    assert either.get(files.url("a")) == either.get(files.url("new")) == some_bytes(size)


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "a", "xb", "x"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_block_that_raises_publishes_nothing(
    either: forebay.Client, files: FileOrigin, mode: str, size: int
) -> None:
    before = used_bytes(either)
    file: Any = either.open(files.url("a"), mode)

    def interrupted_write() -> None:
        with file:
            file.write("x" * size if "b" not in mode else b"x" * size)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        interrupted_write()

    assert file.closed
    assert not either.exists(files.url("a"))
    wait_until(lambda: used_bytes(either) == before, "the room of a file that was given up")


@pytest.mark.parametrize("mode", ["wb", "w", "ab"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_file_that_is_dropped_publishes_nothing_and_complains(
    either: forebay.Client, files: FileOrigin, mode: str, size: int
) -> None:
    before = used_bytes(either)
    with warnings.catch_warnings():  # what earlier tests have left is not this one's
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()

    def write_and_drop() -> None:
        file: Any = either.open(files.url("a"), mode)
        file.write("x" * size if "b" not in mode else b"x" * size)
        del file
        gc.collect()

    with pytest.warns(ResourceWarning, match="nothing was written") as caught:
        write_and_drop()

    assert len(caught) == 1
    assert not either.exists(files.url("a"))
    wait_until(lambda: used_bytes(either) == before, "the room of a file without a writer")


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_file_can_be_discarded(either: forebay.Client, files: FileOrigin, mode: str) -> None:
    file: Any = either.open(files.url("a"), mode)
    file.write("x" if mode == "w" else b"x")
    file.discard()
    file.close()

    assert file.closed
    assert not either.exists(files.url("a"))


def test_file_with_a_failed_write_is_not_published(
    shared: forebay.Client, files: FileOrigin
) -> None:
    file = shared.open(files.url("a"), "wb")
    file.write(bytes(2 * MIB))
    shared._node.channel.call("Abandon", _abandon_all(file), 60.0)
    with pytest.raises(Exception, match="taken back"):
        file.write(bytes(80 * MIB))

    with pytest.raises(Exception, match="an earlier write failed"):
        file.write(b"more")
    with pytest.raises(Exception, match="an earlier write failed"):
        file.close()
    assert file.closed
    assert not shared.exists(files.url("a"))


def _abandon_all(file: Any) -> Any:
    """Return the request that takes the staged file of a writer away."""
    from forebay_protos import cache_pb2 as pb

    return pb.AbandonRequest(file=file._sink._staged.file)


# --- creation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["xb", "x"])
def test_create_writes_what_is_not_there(
    either: forebay.Client, files: FileOrigin, mode: str
) -> None:
    file: Any
    with either.open(files.url("a"), mode) as file:
        file.write("new" if mode == "x" else b"new")

    assert (files.folder / "a").read_bytes() == b"new"
    with pytest.raises(FileExistsError, match=files.url("a")):
        either.open(files.url("a"), mode)
    assert either.get(files.url("a")) == b"new"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_create_loses_against_who_was_faster(
    either: forebay.Client, files: FileOrigin, size: int
) -> None:
    file = either.open(files.url("a"), "xb")
    file.write(bytes(size))
    either.put(files.url("a"), b"faster", mode="write_through")

    with pytest.raises(FileExistsError):
        file.close()

    assert file.closed
    assert either.get(files.url("a")) == b"faster"
    assert (files.folder / "a").read_bytes() == b"faster"
