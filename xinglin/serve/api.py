"""The server: the page and an OpenAI-compatible API in one process on one port.

In: HTTP. Out: ``/v1/chat/completions`` (whole or streamed), ``/v1/models``, ``/health``, ``/metrics`` and the page.
The red-flag rules run before anything else, so that their text is there while the model loads, queues, fails or is stopped::

    curl -s http://localhost:7860/v1/chat/completions -H 'Content-Type: application/json' \\
         -d '{"model": "demo", "messages": [{"role": "user", "content": "胃疼怎么办？"}]}'
"""

import asyncio
import contextlib
import gzip
import hmac
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xinglin.safety.triage import Alert
from xinglin.serve import answer, feedback, page, protocol, runs
from xinglin.serve.backend import Backend, Finished, Pieces, find
from xinglin.serve.gate import Full, Gate, Ticket
from xinglin.serve.metrics import Metrics
from xinglin.serve.protocol import Ask, Head, Refusal

LOG = logging.getLogger("xinglin.serve")
BODY = 1_000_000  # bytes of a request
PAUSE = 0.05  # seconds between two chunks: tokens that come faster are sent together
HEARTBEAT = 10.0  # seconds between two signs of life while a request waits
OPEN = {"/health", *page.FILES}  # paths that need no key
T = TypeVar("T")


@dataclass
class Server:
    """What the routes share. ``backend`` is None while the model loads."""

    name: str
    runs: Path
    backend: Backend | None = None
    waiting: int = 64
    key: str = ""
    database: str = ""
    demo: bool = False
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


# ---------------------------------------------------------------- one answer


class Answering(Response):
    """The answer to one chat request, sent as it is written. It holds its place in the queue from first to last."""

    def __init__(self, server: Server, ask: Ask, client: str) -> None:
        super().__init__()
        self.server = server
        self.ask = ask
        self.client = client
        self.alerts = answer.alerts(ask.questions)
        self.started = time.monotonic()
        for alert in self.alerts:
            server.metrics.add("alerts", level=alert.level)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._place() as ticket:
                pieces = await self.server.loaded.begin(self.ask)
                head = Head(self.ask.model, self.server.loaded.fingerprint)
                write = self._stream if self.ask.stream else self._whole
                await unless_gone(write(head, ticket, pieces, scope, receive, send), receive)
        except Refusal as refusal:
            await refused(refusal, self.alerts)(scope, receive, send)
        except Gone:
            self.server.metrics.add("aborted")

    @contextlib.contextmanager
    def _place(self) -> Any:
        self.server.loaded  # noqa: B018  refuses while the model loads
        try:
            ticket = self.server.gate.enter(self.client)
        except Full:
            message = f"{self.server.waiting} requests wait already; try again shortly"
            raise Refusal(429, message, "queue_full", retry_after=5) from None
        try:
            yield ticket
        finally:
            self.server.gate.leave(ticket)

    async def _whole(self, head: Head, ticket: Ticket, pieces: Pieces, scope: Scope, receive: Receive, send: Send) -> None:
        await ticket.turn()
        text, end = "", Finished("stop", 0, 0)
        async for item in self._observed(pieces):
            if isinstance(item, Finished):
                end = item
            else:
                text += item
        shown = answer.as_json(text) if self.ask.as_json else answer.fixed_text(self.alerts) + text
        tokens = protocol.usage(end.prompt_tokens, end.completion_tokens)
        value = protocol.completion(
            head, shown, end.finish_reason, tokens, answer.extension(head, self.alerts, text, self.ask.questions)
        )
        await reply(value)(scope, receive, send)

    async def _stream(self, head: Head, ticket: Ticket, pieces: Pieces, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        start = Response(headers=headers, media_type="text/event-stream")
        del start.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
        async with contextlib.aclosing(self._events(head, ticket, pieces)) as events:
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, head: Head, ticket: Ticket, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        fixed = "" if self.ask.as_json else answer.fixed_text(self.alerts)
        first = answer.describe(self.alerts) if self.alerts else None
        yield protocol.event(self._chunk(head, {"role": "assistant", "content": fixed}, extension=first))
        try:
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
        text, sections, end = "", answer.Sections(), Finished("stop", 0, 0)
        async with contextlib.aclosing(merged(self._observed(pieces))) as items:
            async for item in items:
                if isinstance(item, Finished):
                    end = item
                    break
                text += item
                shown = {"patches": sections.feed(item)} if self.ask.patches else None
                if not self.ask.as_json:
                    yield protocol.event(self._chunk(head, {"content": item}, extension=shown))
        if self.ask.as_json:
            yield protocol.event(self._chunk(head, {"content": answer.as_json(text)}))
        last = answer.extension(head, self.alerts, text, self.ask.questions) | (
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
            try:
                async for item in pieces:
                    if waits:
                        metrics.first_text(time.monotonic() - self.started)
                        waits = False
                    if isinstance(item, Finished):
                        metrics.add("tokens", item.prompt_tokens, kind="prompt")
                        metrics.add("tokens", item.completion_tokens, kind="completion")
                    yield item
            except Refusal:
                metrics.add("failures")
                raise
            except Exception:  # whatever broke in the model: the log has it, the client gets an error it understands
                metrics.add("failures")
                LOG.exception("an answer failed")
                raise Refusal(500, "the model failed; the server's log has the reason", "model_failed") from None


async def merged(pieces: Pieces) -> AsyncGenerator[str | Finished, None]:
    """The same text in fewer pieces: what comes within ``PAUSE`` of a piece is sent with the next one."""
    queue: asyncio.Queue[str | Finished | Exception] = asyncio.Queue()
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


async def _read(pieces: Pieces, queue: "asyncio.Queue[str | Finished | Exception]") -> None:
    try:
        async with contextlib.aclosing(pieces):
            async for item in pieces:
                queue.put_nowait(item)
    except Exception as error:  # raised again where the queue is read
        queue.put_nowait(error)


def _drained(
    item: str | Finished | Exception, queue: "asyncio.Queue[str | Finished | Exception]"
) -> tuple[str, Finished | Exception | None]:
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


async def body(request: Request, limit: int = BODY) -> bytes:
    """The request's body. Raises ``Refusal`` where it is too long or not JSON by its own account."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(400, f"content type {kind!r}; send application/json", "invalid_content_type")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise Refusal(413, f"the body is longer than {limit} bytes", "body_too_long")
    return bytes(data)


# ---------------------------------------------------------------- the application


class Edge:
    """Around every request: the key, a request id, the safety headers, the count."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        extra = [(key.encode(), value.encode()) for key, value in page.HEADERS.items()]
        extra.append((b"x-request-id", secrets.token_hex(8).encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
                self.server.metrics.add("requests", status=str(message["status"]))
            await send(message)

        refusal = self._refusal(Request(scope))
        handler: Any = refused(refusal) if refusal else self.app
        await handler(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Refusal | None:
        if self.server.key:
            return None if request.url.path in OPEN or authorised(request, self.server.key) else _wrong_key()
        # Without a key only this machine may ask; a foreign Host is a web page that points its name at this machine.
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if host in ("localhost", "127.0.0.1", "[::1]"):
            return None
        return Refusal(403, f"Host {host!r} is not this machine; set XINGLIN_API_KEY to serve other names", "host_not_allowed")


def authorised(request: Request, key: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _wrong_key() -> Refusal:
    return Refusal(401, "the API key is missing or wrong; send Authorization: Bearer <key>", "invalid_api_key")


def create_app(server: Server) -> FastAPI:
    answer.alerts([""])  # loads the red-flag rules: without them there is no server
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(Edge, server=server)
    _add_errors(app)
    _add_api(app, server)
    _add_records(app, server)
    _add_page(app, server)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, refusal: Refusal) -> Response:
        return refused(refusal)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        return refused(
            Refusal(error.status_code, f"{where}: {error.detail}", "not_found" if error.status_code == 404 else "refused")
        )

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        return refused(Refusal(500, "something broke here; the server's log has the reason", "internal_error"))


def _add_api(app: FastAPI, server: Server) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        ask = protocol.read(await body(request))
        address = request.client.host if request.client else ""
        return Answering(server, ask, f"{address} {ask.user}")

    @app.get("/v1/models")
    async def models() -> Response:
        found = await server.loaded.models()
        return reply({"object": "list", "data": [_model(model.id, model.tuned) for model in found]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        found = await find(server.loaded, name)
        return reply(_model(found.id, found.tuned))

    @app.get("/health")
    async def health() -> Response:
        ready = server.backend is not None
        return reply({"status": "ok" if ready else "loading"}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.render(server.gate.running, server.gate.waiting), media_type="text/plain; version=0.0.4")


def _model(name: str, tuned: bool) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "xinglin", "xinglin": {"tuned": tuned}}


def _add_records(app: FastAPI, server: Server) -> None:
    """Ratings and training runs. Database and files are read in threads: they must not hold up answers."""

    @app.post("/v1/feedback")
    async def add(request: Request) -> Response:
        try:
            given = feedback.read(protocol.decode(await body(request)))
        except ValueError as error:
            raise Refusal(400, str(error), "invalid_value") from None
        fingerprint = server.backend.fingerprint if server.backend else ""
        return reply({"id": await asyncio.to_thread(feedback.add, server.store, given, fingerprint)})

    @app.delete("/v1/feedback/{number:int}")
    async def remove(number: int) -> Response:
        if not await asyncio.to_thread(feedback.remove, server.store, number):
            raise Refusal(404, f"rating {number} does not exist", "not_found")
        return reply({"id": number, "deleted": True})

    @app.get("/v1/feedback")
    def export() -> Response:
        lines = "".join(protocol.dumps(row) + "\n" for row in feedback.rows(server.store))
        return Response(lines, media_type="application/jsonl")

    @app.get("/v1/runs")
    def all_runs() -> Response:
        return reply({"object": "list", "data": runs.found(server.runs)})

    @app.get("/v1/runs/{name}")
    def run(name: str, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        try:
            return reply({"object": "list", "data": runs.log(server.runs, name, int(after[:9]))})
        except ValueError as error:
            raise Refusal(404, str(error), "not_found") from None


def _add_page(app: FastAPI, server: Server) -> None:
    files = page.load(server.name, server.demo)

    async def file(request: Request) -> Response:
        data, kind = files[request.url.path]
        headers = {"content-type": kind, "cache-control": "no-cache", "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(data, headers=headers | {"content-encoding": "gzip"})
        return Response(gzip.decompress(data), headers=headers)

    for path in files:
        app.add_route(path, file, methods=["GET"])
