"""A server elsewhere with the methods of an engine, for the terminal chat: ``serve.upstream=http://gpu:8000/v1``.

In: the address. Out: a ``Remote`` with the ``stream`` of an engine; what the server refuses is a ``ValueError`` in one line.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xinglin.generation import Reply, Settings
from xinglin.schema import Message
from xinglin.serve.backend import Pieces
from xinglin.serve.protocol import Ask, Refusal
from xinglin.serve.upstream import Upstream

T = TypeVar("T")


@contextlib.contextmanager
def connect(upstream: Upstream) -> Iterator["Remote"]:
    with asyncio.Runner() as runner:
        try:
            yield Remote(upstream, runner)
        finally:
            runner.run(upstream.close())


class Remote:
    """``adapter`` is a placeholder path where the server offers a tuned model beside its base."""

    def __init__(self, upstream: Upstream, runner: asyncio.Runner) -> None:
        self.upstream = upstream
        self.runner = runner
        self.models = self.run(upstream.models())
        self.name = self.models[-1].id
        self.adapter = Path(self.models[0].id) if len(self.models) > 1 else None
        self.fingerprint = upstream.fingerprint

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self.runner.run(work)
        except Refusal as refusal:
            raise ValueError(refusal.message) from None

    def stream(self, messages: Sequence[Message], **settings: Any) -> "RemoteStream":
        """As that of an engine; see ``Settings``."""
        wanted = Settings(**settings)
        ask = Ask(self.models[0 if wanted.tuned else -1].id, list(messages), wanted)
        return RemoteStream(self, self.run(self.upstream.begin(ask)))


class RemoteStream:
    def __init__(self, remote: Remote, pieces: Pieces) -> None:
        self.remote = remote
        self.pieces = pieces
        self.reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        while not isinstance(item := self.remote.run(_next(self.pieces)), Reply):
            yield item
        self.reply = item

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is being read just now: Ctrl-C has cancelled that already
            self.remote.run(_close(self.pieces))


async def _next(pieces: Pieces) -> str | Reply:
    return await anext(pieces)


async def _close(pieces: AsyncGenerator[Any, None]) -> None:
    await pieces.aclose()
