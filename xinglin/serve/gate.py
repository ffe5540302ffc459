"""The queue in front of the model: a bounded number of waiting requests, served one client after the other in turn.

In: ``enter(client)`` at arrival, which raises ``Full`` at once when too many wait. Out: a ``Ticket``; ``await ticket.turn()``
returns when a slot of the model is free for it, ``leave(ticket)`` gives the slot (or the place in the queue) back. No locks:
one event loop.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field


class Full(Exception):
    """As many requests wait as are allowed to."""


@dataclass(eq=False)
class Ticket:
    client: str
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    async def turn(self) -> None:
        await self.admitted.wait()


class Gate:
    def __init__(self, slots: int, waiting: int) -> None:
        self.slots = slots
        self.running = 0
        self.limit = waiting
        # One line per client; the first client in the dict is next, and goes to the end after each of its requests.
        self.lines: dict[str, deque[Ticket]] = {}

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self.lines.values())

    def enter(self, client: str) -> Ticket:
        """Take a place. Raises ``Full`` when ``limit`` requests wait already."""
        if self.waiting >= self.limit and self.running >= self.slots:
            raise Full
        ticket = Ticket(client)
        self.lines.setdefault(client, deque()).append(ticket)
        self._admit()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place back, whether the request was answered, refused or cancelled while it waited."""
        if ticket.admitted.is_set():
            self.running -= 1
        else:
            self._forget(ticket)
        self._admit()

    def _forget(self, ticket: Ticket) -> None:
        line = self.lines[ticket.client]
        line.remove(ticket)
        if not line:
            del self.lines[ticket.client]

    def _admit(self) -> None:
        while self.lines and self.running < self.slots:
            client = next(iter(self.lines))
            line = self.lines.pop(client)
            ticket = line.popleft()
            if line:
                self.lines[client] = line
            self.running += 1
            ticket.admitted.set()
