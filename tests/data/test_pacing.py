"""Pacing: limits hold, a busy endpoint is eased, money is never promised twice."""

import asyncio
import time

from xinglin import llm
from xinglin.data.pacing import Pace, Purse

GOOD = llm.Reply("ok", text="…")
BUSY = llm.Reply("retry", busy=True, retry_after=0.2)


async def enter_and_leave(pace: Pace, reply: llm.Reply) -> None:
    await pace.enter(1)
    pace.leave(reply, 1, 1)


def test_no_more_fly_than_allowed_and_none_waits_for_ever() -> None:
    async def go() -> int:
        pace, most = Pace(3), 0

        async def one() -> None:
            nonlocal most
            await pace.enter(1)
            most = max(most, pace.flying)
            await asyncio.sleep(0.01)
            pace.leave(GOOD, 1, 1)

        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(20))), 5)
        return most

    assert asyncio.run(go()) == 3


def test_a_busy_answer_halves_the_flight_and_good_ones_bring_it_back() -> None:
    async def go() -> tuple[float, float]:
        pace = Pace(64)
        await enter_and_leave(pace, llm.Reply("retry", busy=True))
        low = pace.limit
        for _ in range(2000):
            await enter_and_leave(pace, GOOD)
        return low, pace.limit

    assert asyncio.run(go()) == (32.0, 64.0)


def test_a_round_of_busy_answers_counts_once() -> None:
    async def go() -> float:
        pace = Pace(64)
        for _ in range(10):
            await pace.enter(1)
        for _ in range(10):
            pace.leave(llm.Reply("retry", busy=True, seconds=1.0), 1, 1)
        return pace.limit

    assert asyncio.run(go()) == 32.0


def test_retry_after_holds_every_request() -> None:
    async def go() -> float:
        pace = Pace(8)
        await enter_and_leave(pace, BUSY)
        started = time.monotonic()
        await pace.enter(1)
        return time.monotonic() - started

    assert asyncio.run(go()) >= 0.19


def test_requests_and_tokens_a_minute() -> None:
    async def seconds(pace: Pace, count: int, tokens: int) -> float:
        started = time.monotonic()
        for _ in range(count):
            await pace.enter(tokens)
            pace.leave(GOOD, tokens, tokens)
        return time.monotonic() - started

    # 1,200 a minute are 20 a second: 26 requests, of which a second's worth may go at once.
    assert 0.2 <= asyncio.run(seconds(Pace(100, requests=1200), 26, 1)) < 1.0
    assert 0.2 <= asyncio.run(seconds(Pace(100, tokens=120_000), 14, 200)) < 1.5


def test_money_set_aside_is_not_promised_twice() -> None:
    async def go() -> tuple[bool, bool, bool]:
        purse = Purse(1.0, 0.5)
        first = await purse.reserve(0.4)
        waiting = asyncio.create_task(purse.reserve(0.4))
        await asyncio.sleep(0.01)
        held = not waiting.done()
        await purse.settle(0.4, 0.05)
        return first and held, await waiting, await Purse(1.0, 0.95).reserve(0.1)

    assert asyncio.run(go()) == (True, True, False)


def test_rounding_does_not_keep_anyone_waiting() -> None:
    async def go() -> bool:
        purse = Purse(1e9, 0.0)
        for most in (0.1, 1e8 / 3, 0.7):
            await purse.reserve(most)
        for most in (1e8 / 3, 0.1, 0.7):
            await purse.settle(most, 0.0)
        return await asyncio.wait_for(purse.reserve(2e9), 2)

    assert not asyncio.run(go())
