"""Pacing: how many requests may be in flight, when the next one may leave, and whether there is money for it.

In: the limits of the recipe and every reply. Out: ``enter`` returns when a request may be sent::

    pace = Pace(most=64, requests=500, tokens=200_000, halt=asyncio.Event())
    await pace.enter(1_800)          # tokens this request may take
    reply = await llm.chat(…)
    pace.leave(reply, used=1_110)    # a 429 halves the number in flight, answers raise it again
"""

import asyncio
import contextlib
import time
from collections import deque

from xinglin.llm import Reply

CUT = 0.5
RAISE = 16  # rounds of answers that bring the number in flight back from nothing to the most
APART = 0.00125  # seconds between two requests, about what a row costs: bursts, whose answers would wait for each other, dissolve
SHORT = 0.1  # seconds that are slept through even if the run is to stop
PAUSE = 120.0  # longest Retry-After obeyed, in seconds


class Pace:
    """``most``: requests in flight; ``requests`` and ``tokens``: per minute, 0: no limit. Nobody waits once ``halt`` is set."""

    def __init__(self, most: int, requests: int = 0, tokens: int = 0, halt: asyncio.Event | None = None) -> None:
        self._halt = halt or asyncio.Event()
        self.most, self.limit, self.flying = most, float(most), 0
        self._requests, self._tokens = _Rate(requests), _Rate(tokens)
        self._line: deque[asyncio.Future[None]] = deque()
        self._held_until = self._cut_at = self._next = 0.0

    async def enter(self, tokens: int) -> None:
        if self._line or self.flying >= int(self.limit):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._line.append(turn)
            await turn
        else:
            self.flying += 1
        try:
            await self._wait(tokens)
        except BaseException:
            self._free()
            raise

    async def _wait(self, tokens: int) -> None:
        self._next = max(self._next + APART, time.monotonic())
        until = max(self._next, self._requests.take(1), self._tokens.take(tokens))
        while not self._halt.is_set() and (delay := max(until, self._held_until) - time.monotonic()) > 0:
            await self._rest(delay)

    async def _rest(self, delay: float) -> None:
        if delay < SHORT:
            await asyncio.sleep(delay)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._halt.wait(), delay)

    def leave(self, reply: Reply, reserved: int, used: int) -> None:
        """``reserved`` tokens were asked for, ``used`` were needed. A busy answer counts once per round, not once per request."""
        now = time.monotonic()
        self._tokens.give_back(reserved - used)
        if reply.busy:
            self._held_until = max(self._held_until, now + min(reply.retry_after, PAUSE))
            if now - reply.seconds >= self._cut_at:
                self.limit, self._cut_at = max(1.0, self.limit * CUT), now
        elif reply.verdict == "ok":
            self.limit = min(float(self.most), self.limit + max(1.0, self.most / RAISE) / self.limit)
        self._free()

    def _free(self) -> None:
        """Hand the place, and any other free one, to those who have waited longest."""
        self.flying -= 1
        while self._line and self.flying < int(self.limit):
            turn = self._line.popleft()
            if not turn.done():
                self.flying += 1
                turn.set_result(None)


class _Rate:
    """Spread so many units evenly over each minute; a second's worth may go at once."""

    def __init__(self, per_minute: int) -> None:
        self.seconds = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    def take(self, units: int) -> float:
        """Book units and return the time (monotonic) they may be used."""
        start = max(self._next, time.monotonic() - 1.0)
        self._next = start + units * self.seconds
        return start

    def give_back(self, units: int) -> None:
        self._next -= units * self.seconds


class Purse:
    """Money that may still be spent. Every request sets aside the most it can cost, so that the budget is never passed."""

    def __init__(self, budget: float, spent: float) -> None:
        self.budget, self.spent, self.aside = budget, spent, 0.0
        self._flying = 0  # reservations; sums of money round, so they do not tell whether one is left
        self._changed = asyncio.Condition()

    async def reserve(self, most: float) -> bool:
        """Set aside; waits while requests in flight may give something back. ``False``: the budget does not reach."""
        async with self._changed:
            while self.budget and self.spent + self.aside + most > self.budget:
                if self._flying == 0:
                    return False
                await self._changed.wait()
            self.aside, self._flying = self.aside + most, self._flying + 1
        return True

    async def settle(self, reserved: float, cost: float) -> None:
        self._flying -= 1
        self.aside, self.spent = max(0.0, self.aside - reserved) if self._flying else 0.0, self.spent + cost
        if self.budget:
            async with self._changed:
                self._changed.notify_all()
