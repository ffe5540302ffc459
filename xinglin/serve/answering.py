"""One answer from request to last byte: its place in the queue, its pieces, its chunks, and the end of it when the client leaves.

In: a checked ``Ask``. Out: ``Answering``, a response that writes itself, whole or as server-sent events::

    data: {"id":"chatcmpl-…","choices":[{"index":0,"delta":{"content":"一、"},"finish_reason":null}],…}
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import Response
from sqlalchemy import Engine
from starlette.types import Receive, Scope, Send

from xinglin.generation import Reply
from xinglin.safety.triage import Alert
from xinglin.serve import answer, feedback, protocol
from xinglin.serve.backend import Backend, Pieces
from xinglin.serve.gate import Full, Gate, Ticket
from xinglin.serve.metrics import Metrics
from xinglin.serve.protocol import Ask, Head, Refusal

LOG = logging.getLogger("xinglin.serve")
WAITING = 64  # requests that wait for the model; the next one is told to come back later
PAUSE = 0.05  # seconds between two chunks: tokens that come faster are sent together
HEARTBEAT = 10.0  # seconds between two signs of life while a request waits
HELD = 1.0  # seconds a stream is held back, so that what is refused by then has a status of its own
T = TypeVar("T")
Beginning = asyncio.Task[Pieces]


@dataclass
class Server:
    """What the routes share. ``backend`` is None while the model loads."""

    name: str
    runs: Path
    backend: Backend | None = None
    waiting: int = WAITING
    key: str = ""
    database: str = ""
    demo: bool = False
    structure: Literal["enforced", "free"] = "enforced"
    gate: Gate = field(init=False)
    store: Engine = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.gate = Gate(1, self.waiting)
        self.store = feedback.open_store(self.database, self.runs)
        if self.backend:
            self.ready(self.backend)

    def ready(self, backend: Backend) -> None:
        self.backend = backend
        self.gate.slots = backend.slots

    @property
    def loaded(self) -> Backend:
        if self.backend is None:
            raise Refusal(503, "the model is still loading", "model_loading", retry_after=5)
        return self.backend


class Gone(Exception):
    """The client went away."""


# ---------------------------------------------------------------- responses


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(protocol.dumps(value), status, headers, "application/json")


def refused(refusal: Refusal, alerts: Sequence[Alert] = ()) -> Response:
    """The error envelope; alerts go with it, so that a red flag is shown even where there is no answer."""
    headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else {}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    extra = {"xinglin": answer.describe(alerts)} if alerts else {}
    return reply(refusal.body() | extra, refusal.status, headers)


# ---------------------------------------------------------------- one answer


class Answering(Response):
    """The answer to one chat request, sent as it is written. It holds its place in the queue from first to last."""

    def __init__(self, server: Server, ask: Ask, client: str, alerts: Sequence[Alert]) -> None:
        super().__init__()
        self.server = server
        self.ask = ask
        self.client = client
        self.alerts = alerts
        self.started = time.monotonic()
        for alert in self.alerts:
            server.metrics.add("alerts", level=alert.level)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            backend = self.server.loaded
            with self._place() as ticket:
                head = Head(self.ask.model, backend.fingerprint)
                write = self._stream if self.ask.stream else self._whole
                beginning = asyncio.create_task(self._begin(backend))
                try:
                    await unless_gone(write(head, ticket, beginning, scope, receive, send), receive)
                finally:
                    beginning.cancel()
        except Refusal as refusal:
            await refused(refusal, self.alerts)(scope, receive, send)
        except Gone:
            self.server.metrics.add("aborted")

    @contextlib.contextmanager
    def _place(self) -> Iterator[Ticket]:
        try:
            ticket = self.server.gate.enter(self.client)
        except Full:
            busy = f"{self.server.gate.running} answers are being written and {self.server.gate.waiting} requests wait"
            raise Refusal(
                429, f"{busy}, which is all there is room for; try again shortly", "queue_full", retry_after=5
            ) from None
        try:
            yield ticket
        finally:
            self.server.gate.leave(ticket)

    async def _begin(self, backend: Backend) -> Pieces:
        with self._failures():
            return await backend.begin(self.ask)

    async def _whole(self, head: Head, ticket: Ticket, beginning: Beginning, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = await beginning
        await ticket.turn()
        text, end = "", Reply("", "stop", 0, 0)
        async for item in self._observed(pieces):
            if isinstance(item, Reply):
                end = item
            else:
                text += item
        shown = answer.as_json(text) if self.ask.as_json else self._fixed() + text
        tokens = protocol.usage(end.prompt_tokens, end.completion_tokens)
        extension = answer.extension(head, self.alerts, text, shown, self.ask.questions) | self._masked()
        await reply(protocol.completion(head, shown, end.finish_reason, tokens, extension))(scope, receive, send)

    def _fixed(self) -> str:
        return answer.fixed_text(self.alerts) if self.ask.fixed_text and not self.ask.data_only else ""

    def _masked(self) -> dict[str, Any]:
        return {} if self.ask.masked is None else {"masked": self.ask.masked}

    async def _stream(self, head: Head, ticket: Ticket, beginning: Beginning, scope: Scope, receive: Receive, send: Send) -> None:
        if await _done(beginning, HELD):
            beginning.result()
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        start = Response(headers=headers, media_type="text/event-stream")
        del start.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
        async with contextlib.aclosing(self._events(head, ticket, beginning)) as events:
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, head: Head, ticket: Ticket, beginning: Beginning) -> AsyncGenerator[bytes, None]:
        first = answer.opening(head, self.alerts) | self._masked()
        yield protocol.event(self._chunk(head, {"role": "assistant", "content": self._fixed()}, extension=first))
        try:
            while not await _done(beginning, HEARTBEAT):
                yield b": waiting for the model\n\n"
            pieces = beginning.result()
            async for sign in self._wait(ticket):
                yield sign
            async for data in self._written(head, pieces):
                yield data
        except Refusal as refusal:
            yield protocol.event(refusal.body())

    async def _wait(self, ticket: Ticket) -> AsyncGenerator[bytes, None]:
        """Comments, which clients skip, until it is this request's turn."""
        while not ticket.admitted.is_set():
            yield f": queued {self.server.gate.waiting}\n\n".encode()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ticket.turn(), HEARTBEAT)

    async def _written(self, head: Head, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        text, sections, end, whole = "", answer.Sections(), Reply("", "stop", 0, 0), self._fixed()
        async with contextlib.aclosing(merged(self._observed(pieces))) as items:
            async for item in items:
                if isinstance(item, Reply):
                    end = item
                    break
                text += item
                shown = {"patches": sections.feed(item)} if self.ask.patches else None
                if not self.ask.as_json:
                    yield protocol.event(self._chunk(head, {"content": item}, extension=shown))
        whole += answer.as_json(text) if self.ask.as_json else text
        if self.ask.as_json:
            yield protocol.event(self._chunk(head, {"content": whole}))
        last = answer.extension(head, self.alerts, text, whole, self.ask.questions) | (
            {"patches": sections.finish()} if self.ask.patches else {}
        )
        yield protocol.event(self._chunk(head, {}, end.finish_reason, last))
        if self.ask.usage:
            yield protocol.event(protocol.usage_chunk(head, protocol.usage(end.prompt_tokens, end.completion_tokens)))
        yield protocol.DONE

    def _chunk(self, head: Head, delta: dict[str, str], finish: str | None = None, extension: Any = None) -> dict[str, Any]:
        value = protocol.chunk(head, delta, finish, extension)
        return value | {"usage": None} if self.ask.usage else value

    async def _observed(self, pieces: Pieces) -> Pieces:
        """The pieces, counted and timed on their way."""
        metrics, waits = self.server.metrics, True
        async with contextlib.aclosing(pieces):
            with self._failures():
                async for item in pieces:
                    if waits:
                        metrics.first_text(time.monotonic() - self.started)
                        waits = False
                    if isinstance(item, Reply):
                        metrics.add("tokens", item.prompt_tokens, kind="prompt")
                        metrics.add("tokens", item.completion_tokens, kind="completion")
                    yield item

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever breaks in the model: the log has it, the client gets an error it understands."""
        try:
            yield
        except Refusal as refusal:
            if refusal.status >= 500:
                self.server.metrics.add("failures")
            raise
        except Exception:
            self.server.metrics.add("failures")
            LOG.exception("an answer failed")
            raise Refusal(500, "the model failed; the server's log has the reason", "model_failed") from None


async def _done(task: Beginning, seconds: float) -> bool:
    """Whether the task is done within so many seconds; it goes on if it is not."""
    await asyncio.wait({task}, timeout=seconds)
    return task.done()


async def merged(pieces: Pieces) -> AsyncGenerator[str | Reply, None]:
    """The same text in fewer pieces: what comes within ``PAUSE`` of a piece is sent with the next one."""
    queue: asyncio.Queue[str | Reply | Exception] = asyncio.Queue()
    reader = asyncio.create_task(_read(pieces, queue))
    try:
        while True:
            text, end = _drained(await queue.get(), queue)
            if text:
                yield text
            if isinstance(end, Exception):
                raise end
            if end:
                yield end
                return
            await asyncio.sleep(PAUSE)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _read(pieces: Pieces, queue: "asyncio.Queue[str | Reply | Exception]") -> None:
    try:
        async with contextlib.aclosing(pieces):
            async for item in pieces:
                queue.put_nowait(item)
    except Exception as error:  # raised again where the queue is read
        queue.put_nowait(error)


def _drained(
    item: str | Reply | Exception, queue: "asyncio.Queue[str | Reply | Exception]"
) -> tuple[str, Reply | Exception | None]:
    """All text that is there by now, and the end if it is there too."""
    text = ""
    while isinstance(item, str):
        text += item
        if queue.empty():
            return text, None
        item = queue.get_nowait()
    return text, item


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of ``work``; it is cancelled, and ``Gone`` raised, when the client leaves before it is done."""
    task, watch = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
