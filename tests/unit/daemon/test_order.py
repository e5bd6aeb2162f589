"""The order of writes against the plainest model: one after the other."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_protos import spool
from forebay_protos.spool import Trailer
from forebayd.spool.order import UPLOADING, WAITING, Order, Upload

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

ORIGIN = "s3://"
KEYS = ("s3://b/a", "s3://b/t/x", "s3://b/t/y", "s3://b/tt")
TREE = "s3://b/t"

_numbers = itertools.count(1)

PUTS = st.tuples(st.just(spool.PUT), st.sampled_from(KEYS), st.just(""))
REMOVES = st.tuples(st.just(spool.REMOVE), st.sampled_from(KEYS), st.just(""))
TREES = st.tuples(st.just(spool.REMOVE_TREE), st.just(TREE), st.just(""))
MOVES = st.tuples(st.just(spool.MOVE), st.sampled_from(KEYS), st.sampled_from(KEYS))
WRITES = st.lists(st.one_of(PUTS, PUTS, PUTS, REMOVES, TREES, MOVES), max_size=14)


def make(kind: str, uri: str, target: str = "") -> Upload:
    name = f"{next(_numbers):012d}"
    trailer = Trailer(kind, uri, target=target)
    return Upload(name, trailer, ORIGIN, is_through=kind == spool.MOVE)


def apply(origin: dict[str, str], upload: Upload) -> None:
    """Do at once what *upload* says; its name stands for its bytes."""
    trailer = upload.trailer
    if trailer.kind == spool.PUT:
        origin[trailer.uri] = upload.name
    elif trailer.kind == spool.REMOVE:
        origin.pop(trailer.uri, None)
    elif trailer.kind == spool.REMOVE_TREE:
        for key in [key for key in origin if key == TREE or key.startswith(TREE + "/")]:
            del origin[key]
    elif trailer.uri in origin and trailer.uri != trailer.target:
        origin[trailer.target] = origin.pop(trailer.uri)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@given(WRITES, st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=400, deadline=None)
def test_the_origin_ends_as_if_each_write_had_waited_for_the_last(
    writes: list[tuple[str, str, str]], random: Any, at_once: int
) -> None:
    async def scene() -> None:
        order, origin = Order(), dict.fromkeys(KEYS, "old")
        expected = dict(origin)
        left = [make(*write) for write in writes]
        running: list[Upload] = []
        while left or len(order):
            step = random.choice(("add", "start", "end"))
            if step == "add" and left:
                upload = left.pop(0)
                apply(expected, upload)
                order.add(upload)
            elif step == "start" and len(running) < at_once:
                ready = list(order.ready(ORIGIN, 0.0))
                if ready:
                    chosen = random.choice(ready)
                    chosen.state = UPLOADING
                    running.append(chosen)
            elif step == "end" and running:
                upload = running.pop(random.randrange(len(running)))
                if random.random() < 0.2:
                    upload.state = WAITING  # the attempt failed
                    continue
                if upload.is_barrier:
                    assert all(other.name > upload.name for other in order if other is not upload)
                apply(origin, upload)
                order.remove(upload)
            moved = {name for u in order if u.is_through for name in (u.uri, u.trailer.target)}
            for key in set(KEYS) - moved:
                seen = order.seen(ORIGIN, key)
                if seen is None:
                    if not any(u.refers_to(key) for u in order):
                        assert origin.get(key) == expected.get(key)
                else:
                    assert (None if seen.is_barrier else seen.name) == expected.get(key)
        assert origin == expected

    run(scene())


def test_a_write_is_skipped_for_a_later_one_of_its_key() -> None:
    async def scene() -> None:
        order = Order()
        first, second = make(spool.PUT, KEYS[0]), make(spool.PUT, KEYS[0])
        first.committed_at = 1.0
        assert order.add(first) is None
        assert order.add(second) is first
        assert list(order) == [second]
        assert second.committed_at == 1.0  # the key's bytes have been waiting since then

    run(scene())


def test_nothing_is_skipped_over_a_remove_of_another_key() -> None:
    """Else the remove could run while the origin has neither the old nor the new checkpoint."""

    async def scene() -> None:
        order = Order()
        latest, remove = make(spool.PUT, KEYS[0]), make(spool.REMOVE, KEYS[3])
        order.add(latest)
        order.add(remove)
        assert order.add(make(spool.PUT, KEYS[0])) is None
        assert order.blocker(remove) is latest

    run(scene())


def test_what_is_being_uploaded_is_not_skipped() -> None:
    async def scene() -> None:
        order = Order()
        first, second = make(spool.PUT, KEYS[0]), make(spool.PUT, KEYS[0])
        order.add(first)
        first.state = UPLOADING
        assert order.add(second) is None
        assert order.blocker(second) is first

    run(scene())


def test_a_failed_write_blocks_barriers_and_its_key_only() -> None:
    async def scene() -> None:
        order = Order()
        failed, other = make(spool.PUT, KEYS[0]), make(spool.PUT, KEYS[3])
        remove, later = make(spool.REMOVE, KEYS[0]), make(spool.PUT, KEYS[0])
        for upload in (failed, other, remove, later):
            order.add(upload)
        order.fail(failed)
        assert list(order.ready(ORIGIN, 0.0)) == [other]
        assert order.culprit(remove) is failed
        assert order.culprit(later) is failed
        assert order.culprit(other) is None
        order.remove(other)
        order.remove(failed)
        assert list(order.ready(ORIGIN, 0.0)) == [remove]

    run(scene())
