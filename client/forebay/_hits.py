"""Hits: bytes out of the shared cache folder, with no message to the daemon.

The rules are in ``forebay_protos.table``: take the record, copy the bytes, take the record again.
What cannot be served like this is None here, and ``_misses`` asks the daemon.

Cold pages are read with ``pread``, which lets other threads run; a page fault in a mapping holds
the GIL, reads ahead too much, and an I/O error in it kills the process. What this process has not
read lately is read with ``pread`` too: no slower than the faults of a first copy from the mapping.
Otherwise pages that somebody touched in the last minute are taken to be in memory, and older ones
are probed (1 us).
"""

from __future__ import annotations

import os
import struct
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from forebay._counters import HIT_BYTES, HITS, RETRIES, TABLE_MISSES, count_hit, time_hit
from forebay._folder import LEASE_NS
from forebay._pages import is_resident, lend, preread, read_file
from forebay._paths import Paths, StrPath, Tier, as_text, check_mapping
from forebay_protos import layout, uris
from forebay_protos.counters import TIMED_ONE_IN
from forebay_protos.table import (
    ALIGNMENT,
    BUCKET_SIZE,
    HEADER_SIZE,
    IDENTITY_SIZE,
    PACKED,
    RECORD,
    RECORD_SIZE,
    groups_mask,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay._folder import Folder
    from forebay._mapping import OpenFile
    from forebay._node import Node

Result = TypeVar("Result")

ROUNDS = 3  # of look, copy, compare, before the daemon is asked for the bytes
_WARM_NS = 60_000_000_000  # pages that were touched so lately are taken to be in memory
_RESIDENTS = 8
_MEMO_PATHS = 65_536  # in each of two generations, some 15 MB with the paths
_MEMO_FOLDERS = 4_096
_unpack_halves = struct.Struct("<QQ").unpack
_unpack_record = RECORD.unpack
_CRC_AT = RECORD_SIZE - 4
_NOT_PLAIN = frozenset(("", ".", ".."))


Known = bytes
"""A record that was found and verified, with its position in the table in front: 72 bytes. Tens of
thousands are remembered: so they are small, and nothing that the garbage collector has to follow.
"""

_unpack_known = struct.Struct(f"<Q{RECORD.format.removeprefix('<')}").unpack
_AT_SIZE = 8


def file_number(known: Known) -> int:
    """Return the number of the segment, or for a blob its generation, negative."""
    _, _, generation, place, _, _, flags, _, _, _ = _unpack_known(known)
    return int(place >> 32 if flags & PACKED else -generation)


def size_bytes(known: Known) -> int:
    return int(_unpack_known(known)[4])


def first_byte(known: Known) -> int:
    """Return where in its file the object begins."""
    _, _, _, place, _, _, flags, _, _, _ = _unpack_known(known)
    return int((place & 0xFFFF_FFFF) * ALIGNMENT if flags & PACKED else 0)


def identity_of(known: Known) -> bytes:
    """Return what names the content: two records with the same have the same bytes."""
    return known[_AT_SIZE : _AT_SIZE + IDENTITY_SIZE]


def has(known: Known, start: int, end: int) -> bool:
    """Tell whether the cache has these bytes of the object."""
    _, _, _, place, size, _, flags, block_shift, _, _ = _unpack_known(known)
    if flags & PACKED:
        return True
    needed = groups_mask(start, end, size, block_shift)
    return bool(place & needed == needed)


class View:
    """A folder as the paths of some Clients see it, and what was found in it lately."""

    __slots__ = (
        "_bucket_mask",
        "_folders",
        "_keys",
        "_paths",
        "counters",
        "folder",
        "old",
        "recency",
        "segments",
        "table",
        "young",
    )

    def __init__(self, folder: Folder, paths: Paths) -> None:
        self.folder = folder
        self.table = folder.table
        self.recency = folder.recency
        self.counters = folder.counters
        self.young: dict[str, Known] = {}
        self.old: dict[str, Known] = {}
        self._paths = paths
        attachment = folder.attachment
        self._keys = {
            row.prefix: layout.fingerprint_key(attachment.cache_id, row.identity)
            for row in attachment.origins
        }
        self._bucket_mask = folder.bucket_mask
        self.segments = folder.segments
        self._folders: dict[str, blake2b] = {}  # path of a folder -> hash of its URI, unfinished

    def _fingerprint(self, path: str) -> bytes | None:
        """Return the fingerprint of the object, None if no origin serves it."""
        resolved = uris.resolve(self._paths.uri(path), self._keys)
        if resolved is None:
            return None
        uri, _, key = resolved
        head, slash, name = path.rpartition("/")
        if head and name not in _NOT_PLAIN and uri.endswith(slash + name):
            self._remember_folder(head, uri.removesuffix(name), key)
        return layout.fingerprint(key, uri)

    def _remember_folder(self, head: str, uri: str, key: bytes) -> None:
        """Note that all plain names below *head* are those below *uri*, if that is so."""
        _, separator, rest = uri.partition("://")
        if not separator or not rest or not self._paths.is_uniform_below(head):
            return
        if any(prefix.startswith(uri) for prefix in self._keys):
            return  # a name in this folder may be another origin's
        if len(self._folders) >= _MEMO_FOLDERS:
            self._folders = {}
        self._folders[head] = blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=16, key=key)

    def find(self, path: str) -> Known | None:
        """Look into the table."""
        # One function, too: a pass of a fresh process goes through here for each object.
        head, _, name = path.rpartition("/")
        hashed = self._folders.get(head)
        if hashed is not None and name not in _NOT_PLAIN:
            hashed = hashed.copy()
            hashed.update(name.encode("utf-8", "surrogatepass"))
            fingerprint: bytes | None = hashed.digest()
        else:
            fingerprint = self._fingerprint(path)
        if fingerprint is None:
            return None
        table = self.table
        mask = self._bucket_mask
        for half in _unpack_halves(fingerprint):
            start = HEADER_SIZE + (half & mask) * BUCKET_SIZE
            bucket = table[start : start + BUCKET_SIZE]
            at = bucket.find(fingerprint)
            while at >= 0:
                record = bucket[at : at + RECORD_SIZE]
                if at % RECORD_SIZE == 0:
                    fields = _unpack_record(record)
                    if fields[1] and crc32(record[:_CRC_AT]) == fields[8]:
                        known: Known = (start + at).to_bytes(_AT_SIZE, "little") + record
                        return known
                at = bucket.find(fingerprint, at + 1)
        return None

    def remember(self, path: str, known: Known) -> None:
        if len(self.young) >= _MEMO_PATHS:
            self.old = self.young
            self.young = {}
        self.young[path] = known

    def is_as_it_was(self, known: Known) -> bool:
        at = int.from_bytes(known[:_AT_SIZE], "little")
        return self.table[at : at + RECORD_SIZE] == known[_AT_SIZE:]

    def is_unchanged(self, known: Known) -> bool:
        """Tell whether the bytes that were copied meanwhile are those of the record."""
        at = int.from_bytes(known[:_AT_SIZE], "little")
        # Only this much: another time or another block is no other content.
        return self.table[at : at + IDENTITY_SIZE] == identity_of(known)


class Hits:
    """Reads through the shared folder for all Clients with the same path mappings. Thread-safe."""

    def __init__(self, node: Node, tiers: tuple[Tier, ...]) -> None:
        self._node = node
        self._tiers = tiers
        self._view: View | None = None  # as long as there is no folder
        self._residents = 0  # first touches in a row that found their pages in memory

    def get(self, path: StrPath, start: int | None = None, end: int | None = None) -> bytes | None:
        """Return the bytes of an object, sliced as Python slices, or None for a miss."""
        if path.__class__ is not str:
            path = as_text(path)
        view = self._view
        known = None if view is None else view.young.get(path)
        # All of this is one function, and the checks are in this order, because it is the product:
        # a call costs 0.1 us here, and 4 KB are copied in 0.2.
        if known is not None and view is not None:
            at, _, _, place, size, stale_after_ns, flags, _, _, _ = _unpack_known(known)
            mapping = view.segments.get(place >> 32)
            recency = view.recency
            slot = (at - HEADER_SIZE) // RECORD_SIZE
            now = time.time_ns()
            if (
                mapping is not None
                and flags & PACKED
                and now < stale_after_ns
                and 0 <= now - view.folder.checked_ns < LEASE_NS
                and now - recency[slot] < _WARM_NS
            ):
                table = view.table
                record = known[_AT_SIZE:]
                stop = at + RECORD_SIZE
                first = (place & 0xFFFF_FFFF) * ALIGNMENT
                if table[at:stop] == record:
                    if start is None and end is None:
                        data = mapping[first : first + size].tobytes()
                    else:
                        low, high, _ = slice(start, end).indices(size)
                        data = mapping[first + low : first + max(low, high)].tobytes()
                    if table[at:stop] == record:
                        recency[slot] = now
                        row = view.counters.row
                        hits = row[HITS] + 1
                        row[HITS] = hits
                        row[HIT_BYTES] += len(data)
                        if not hits % TIMED_ONE_IN:
                            time_hit(row, now)
                        return data
        elif view is not None and start is None and end is None and path not in view.old:
            return self._get_first(view, path)
        return self.look(path, start, end)

    def _get_first(self, view: View, path: str) -> bytes | None:
        """Do what ``look`` does, faster, for an object that this process has not read lately."""
        now = time.time_ns()
        if 0 <= now - view.folder.checked_ns < LEASE_NS:
            known = view.find(path)
            if known is not None:
                at, _, _, place, size, stale_after_ns, flags, _, _, _ = _unpack_known(known)
                if flags & PACKED and now < stale_after_ns:
                    first, number = (place & 0xFFFF_FFFF) * ALIGNMENT, place >> 32
                    try:
                        # Warm pages come out of the mapping in three quarters of pread's time.
                        if self._seems_resident(view.folder.file(number), first + size):
                            data = view.folder.segment(number)[first : first + size].tobytes()
                        else:
                            data = os.pread(view.folder.file(number).fd, size, first)
                    except OSError:
                        data = b""
                    if len(data) == size and view.table[at : at + RECORD_SIZE] == known[_AT_SIZE:]:
                        view.recency[(at - HEADER_SIZE) // RECORD_SIZE] = now
                        row = view.counters.row
                        hits = row[HITS] + 1
                        row[HITS] = hits
                        row[HIT_BYTES] += size
                        if not hits % TIMED_ONE_IN:
                            time_hit(row, now)
                        view.remember(path, known)
                        return data
        return self.look(path, None, None)

    def _seems_resident(self, file: OpenFile, end: int) -> bool:
        """Tell whether an object's pages are in memory: asked of each, or of one in eight once
        eight in a row were; asking costs a tenth of the copy."""
        self._residents += 1
        if self._residents > _RESIDENTS and self._residents % _RESIDENTS:
            return True
        if not is_resident(file, max(0, end - 1)):
            self._residents = 0
            return False
        return True

    def look(
        self, path: str, start: int | None, end: int | None, *, is_filled: bool = False
    ) -> bytes | None:
        """Return the bytes like ``get``, with a look into the table.

        *is_filled*: the daemon has just said that they are there and fresh, and has counted them.
        """
        began_ns = time.time_ns()
        for _ in range(ROUNDS):
            view, known, is_first_touch = self._find(path, is_filled)
            if view is None or known is None:
                break
            at, _, generation, place, size, _, flags, _, _, _ = _unpack_known(known)
            low, high = 0, size
            if start is not None or end is not None:
                low, high, _ = slice(start, end).indices(size)
                high = max(low, high)
            is_packed = flags & PACKED
            first = (place & 0xFFFF_FFFF) * ALIGNMENT if is_packed else 0
            number = place >> 32 if is_packed else -generation
            if not is_packed and not has(known, low, high):
                break
            try:
                if is_first_touch or not is_packed or not _are_resident(view, known):
                    data = read_file(view.folder.file(number), first + low, high - low)
                else:
                    data = view.folder.segment(number)[first + low : first + high].tobytes()
            except OSError:
                data = b""
            if len(data) == high - low and view.is_unchanged(known):
                view.recency[(at - HEADER_SIZE) // RECORD_SIZE] = time.time_ns()
                if not is_filled:
                    count_hit(view.counters.row, len(data), began_ns)
                return data
            view.young.pop(path, None)
            view.counters.row[RETRIES] += 1
        if not is_filled:
            self._count_miss()
        return None

    def read_into(
        self, path: str, start: int, target: memoryview, identity: bytes, whole_bytes: int
    ) -> bytes:
        """Read a range that was just filled; returns the identity of the record that it is of.

        b"" if the range is not there, or of another record than *identity* (b"": of any whose
        object has *whole_bytes*; of another size, the range would end elsewhere).
        """
        view, known, _ = self._find(path, True)
        if (
            view is None
            or known is None
            or size_bytes(known) != whole_bytes
            or not has(known, start, start + len(target))
        ):
            return b""
        now = identity_of(known)
        file, first = file_number(known), first_byte(known)
        try:
            count = os.preadv(view.folder.file(file).fd, [target], first + start)
        except OSError:
            return b""
        is_right = count == len(target) and now in (identity or now,) and view.is_unchanged(known)
        return now if is_right else b""

    def find(self, path: str, *, is_filled: bool = False) -> tuple[View, Known] | None:
        """Return the record of an object, None if it may not be served unasked."""
        view, known, _ = self._find(path, is_filled)
        return None if view is None or known is None else (view, known)

    def _find(self, path: str, is_filled: bool) -> tuple[View | None, Known | None, bool]:
        """Like ``find``; the third value: has this process not read the object lately?"""
        view = self._view
        now = time.time_ns()
        if view is None or not 0 <= now - view.folder.checked_ns < LEASE_NS:
            view = self._current_view()
            if view is None:
                return None, None, True
        known = view.young.get(path)
        is_first_touch = known is None
        if known is None:
            known = view.old.get(path)
        if known is None or not view.is_as_it_was(known):
            known = view.find(path)
            if known is None:
                # Emptied, perhaps, because another table has taken its place: look at once.
                view.folder.checked_ns = 0
                earlier, view = view, self._current_view()
                known = None if view is None or view is earlier else view.find(path)
            if view is None or known is None:
                return view, None, True
            is_first_touch = True
        if is_first_touch:
            view.remember(path, known)
        if not is_filled and now >= _unpack_known(known)[5]:
            return view, None, True
        return view, known, is_first_touch

    def contains(self, path: str) -> bool:
        """Tell whether the object is known to exist without asking anybody."""
        return self.find(path) is not None

    def is_whole(self, path: str) -> bool:
        """Tell whether all bytes of the object are here and may be read without asking anybody."""
        found = self.find(path)
        return found is not None and has(found[1], 0, size_bytes(found[1]))

    def _current_view(self) -> View | None:
        folder = self._node.folder()
        view = self._view
        if folder is None:
            self._view = None
        elif view is None or view.folder is not folder:
            mapping = check_mapping(folder.attachment.path_mapping)
            self._view = View(folder, Paths((*self._tiers, mapping)))
        return self._view

    def _count_miss(self) -> None:
        view = self._view
        if view is not None:
            view.counters.row[TABLE_MISSES] += 1

    def apply(self, path: str, function: Callable[[memoryview], Result]) -> tuple[Result] | None:
        """Return what *function* returns for the object's bytes, in a tuple, or None for a miss."""
        view = self._view
        known = None if view is None else view.young.get(path)
        if known is not None and view is not None:
            # As in ``get``, in one go.
            at, _, _, place, size, stale_after_ns, flags, _, _, _ = _unpack_known(known)
            mapping = view.segments.get(place >> 32)
            slot = (at - HEADER_SIZE) // RECORD_SIZE
            now = time.time_ns()
            if (
                mapping is not None
                and flags & PACKED
                and now < stale_after_ns
                and 0 <= now - view.folder.checked_ns < LEASE_NS
                and now - view.recency[slot] < _WARM_NS
                and view.table[at : at + RECORD_SIZE] == known[_AT_SIZE:]
            ):
                first = (place & 0xFFFF_FFFF) * ALIGNMENT
                try:
                    result = lend(mapping[first : first + size], function)
                except Exception:
                    if view.is_unchanged(known):
                        raise
                else:
                    if view.is_unchanged(known):
                        view.recency[slot] = now
                        row = view.counters.row
                        row[HITS] += 1  # not timed: most of it is the function
                        row[HIT_BYTES] += size
                        return (result,)
        return self._apply(path, function)

    def _apply(self, path: str, function: Callable[[memoryview], Result]) -> tuple[Result] | None:
        """``apply`` for everything but the repeated hit of a packed object."""
        for _ in range(ROUNDS):
            view, known, is_first_touch = self._find(path, False)
            if view is None or known is None:
                break
            at, _, _, _, size, *_ = _unpack_known(known)
            if not has(known, 0, size):
                break
            folder, first, number = view.folder, first_byte(known), file_number(known)
            try:
                mapping = folder.segment(number) if number > 0 else folder.blob(number, size)
                if is_first_touch or not _are_resident(view, known):
                    preread(folder.file(number), first, size)
            except OSError:
                break
            try:
                result = lend(mapping[first : first + size], function)
            except Exception:
                # It counts only if it came from the right bytes.
                if view.is_unchanged(known):
                    raise
            else:
                if view.is_unchanged(known):
                    view.recency[(at - HEADER_SIZE) // RECORD_SIZE] = time.time_ns()
                    row = view.counters.row
                    row[HITS] += 1  # not timed: most of it is the function
                    row[HIT_BYTES] += size
                    return (result,)
            view.counters.row[RETRIES] += 1
        self._count_miss()
        return None


def _are_resident(view: View, known: Known) -> bool:
    """Tell whether an object's pages are taken to be in memory.

    Asked for the last one: reading ahead for a neighbour brings the first pages only.
    """
    at, _, _, _, size, *_ = _unpack_known(known)
    slot = (at - HEADER_SIZE) // RECORD_SIZE
    return (
        time.time_ns() - view.recency[slot] < _WARM_NS
        or not size
        or is_resident(view.folder.file(file_number(known)), first_byte(known) + size - 1)
    )
