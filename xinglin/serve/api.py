"""The server: the page and an OpenAI-compatible API in one process on one port.

In: HTTP. Out: ``/v1/chat/completions`` (whole or streamed), ``/v1/models``, ``/health``, ``/metrics`` and the page.
The red-flag rules run before anything else, so that their text is there while the model loads, queues, fails or is stopped::

    curl -s http://localhost:7860/v1/chat/completions -H 'Content-Type: application/json' \\
         -d '{"model": "demo", "messages": [{"role": "user", "content": "胃疼怎么办？"}]}'
"""

import asyncio
import gzip
import hmac
import secrets
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xinglin.safety.triage import Alert, every
from xinglin.serve import answer, feedback, page, protocol, runs
from xinglin.serve.answering import Answering, Server, refused, reply
from xinglin.serve.backend import find
from xinglin.serve.masking import masked
from xinglin.serve.protocol import Refusal

BODY = 1_000_000  # bytes of a request
CHAT = "/v1/chat/completions"
STRANGER = 100_000  # bytes that are read of a question without the right key, of which the rules see
STRANGERS_TURNS, STRANGERS_TEXT = 4, 1000  # the last turns, and so many characters of each
OPEN = {"/health", *page.FILES}  # paths that need no key


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


class Edge:
    """Around every request: the key, a request id, the safety headers, the count."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        extra = [(key.encode(), value.encode()) for key, value in page.HEADERS.items()]
        extra.append((b"x-request-id", secrets.token_hex(8).encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
                self.server.metrics.add("requests", status=str(message["status"]))
            await send(message)

        refusal = self._refusal(request)
        handler: Any = refused(refusal, await _alerts_of(request)) if refusal else self.app
        await handler(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Refusal | None:
        if self.server.key:
            return None if request.url.path in OPEN or authorised(request, self.server.key) else _wrong_key()
        # Without a key only this machine may ask; a foreign Host is a web page that points its name at this machine.
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if host in ("localhost", "127.0.0.1", "[::1]"):
            return None
        return Refusal(403, f"Host {host!r} is not this machine; set XINGLIN_API_KEY to serve other names", "host_not_allowed")


async def _alerts_of(request: Request) -> list[Alert]:
    """The red flags in a question that is refused at the door. Strangers do not get much of a core for that."""
    if (request.method, request.url.path) != ("POST", CHAT):
        return []
    try:
        data = await body(request, STRANGER)
    except Refusal:
        return []
    return await answer.alerts([text[:STRANGERS_TEXT] for text in protocol.questions_in(data)[-STRANGERS_TURNS:]])


def authorised(request: Request, key: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _wrong_key() -> Refusal:
    return Refusal(401, "the API key is missing or wrong; send Authorization: Bearer <key>", "invalid_api_key")


def create_app(server: Server) -> FastAPI:
    every([""])  # loads the red-flag rules: without them there is no server
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
    @app.post(CHAT)
    async def chat(request: Request) -> Response:
        data = await body(request)
        try:
            ask = protocol.read(data, server.structure)
        except Refusal as refusal:
            return refused(refusal, await answer.alerts(protocol.questions_in(data)))
        address = request.client.host if request.client else ""
        alerts = await answer.alerts(ask.questions)  # of what was typed, not of what is left of it
        ask = await masked(ask) if ask.mask else ask
        return Answering(server, ask, f"{address} {ask.user}", alerts)

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
