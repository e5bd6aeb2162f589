"""Single flight: one piece of work per key, proved with gates, not with sleeps."""

from __future__ import annotations

import asyncio

import pytest

from forebayd.cache.flight import Flights


def test_readers_that_come_while_work_is_under_way_share_it() -> None:
    async def story() -> None:
        flights, gate, calls = Flights(), asyncio.Event(), 0

        async def work() -> str:
            nonlocal calls
            calls += 1
            await gate.wait()
            return "bytes"

        readers = [asyncio.create_task(flights.do("key", work)) for _ in range(80)]
        while flights.waiting("key") < 80:
            await asyncio.sleep(0)
        gate.set()

        assert await asyncio.gather(*readers) == ["bytes"] * 80
        assert calls == 1
        assert flights.joined_total == 79
        assert len(flights) == 0

    asyncio.run(story())


def test_an_error_reaches_every_waiter_and_is_not_remembered() -> None:
    async def story() -> None:
        flights, gate = Flights(), asyncio.Event()

        async def fail() -> None:
            await gate.wait()
            raise ValueError("broken")

        async def work() -> str:
            return "whole"

        readers = [asyncio.create_task(flights.do("key", fail)) for _ in range(3)]
        while flights.waiting("key") < 3:
            await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*readers, return_exceptions=True)

        assert [str(result) for result in results] == ["broken"] * 3
        assert await flights.do("key", work) == "whole"

    asyncio.run(story())


def test_a_waiter_that_gives_up_leaves_the_work_to_the_others() -> None:
    async def story() -> None:
        flights, gate = Flights(), asyncio.Event()

        async def work() -> str:
            await gate.wait()
            return "bytes"

        first = asyncio.create_task(flights.do("key", work))
        second = asyncio.create_task(flights.do("key", work))
        while flights.waiting("key") < 2:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()

        assert await second == "bytes"

    asyncio.run(story())
