"""Where answers come from: the engine in this process, or any OpenAI-compatible server behind this one.

In: an ``Ask``. Out: ``await begin(ask)`` refuses what cannot be answered and returns the pieces: text as it comes, then one
``Reply``. Reading the first piece starts the generation, closing the pieces stops it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx

from xinglin.generation import ROWS, Item, Post, Reply, Running, SchemaError, Settings
from xinglin.schema import Message
from xinglin.serve.protocol import Ask, Refusal


@dataclass(frozen=True)
class Model:
    """A name clients ask for; ``tuned``: with the adapter."""

    id: str
    tuned: bool


Pieces = AsyncGenerator[str | Reply, None]


class Backend(Protocol):
    slots: int
    fingerprint: str

    async def models(self) -> Sequence[Model]: ...
    async def begin(self, ask: Ask) -> Pieces: ...
    async def close(self) -> None: ...


async def find(backend: Backend, name: str) -> Model:
    """The model of that name. Raises ``Refusal`` (404) that lists the names there are."""
    models = await backend.models()
    for model in models:
        if model.id == name:
            return model
    names = ", ".join(model.id for model in models)
    raise Refusal(404, f"model {name!r} does not exist; there are: {names}", "model_not_found", "model")


# ---------------------------------------------------------------- the engine in this process


class AnyEngine(Protocol):
    """What is used of ``xinglin.engine.Engine``."""

    name: str
    adapter: Path | None
    fingerprint: str

    def prepare(self, messages: Sequence[Message], settings: Settings, post: Post) -> Running: ...


class Local:
    """Base and tuned of one engine. The tuned model has the name of the recipe, the base that of its folder or hub."""

    def __init__(self, engine: AnyEngine, name: str, slots: int = ROWS) -> None:
        self.engine = engine
        self.slots = slots
        self.fingerprint = engine.fingerprint
        base = engine.name if engine.name != name else f"{name}-base"
        self._models = [Model(name, True), Model(base, False)] if engine.adapter else [Model(base, False)]

    async def models(self) -> Sequence[Model]:
        return self._models

    async def begin(self, ask: Ask) -> Pieces:
        model = await find(self, ask.model)
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Item] = asyncio.Queue()

        def post(item: Item) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        settings = replace(ask.settings, tuned=model.tuned)
        return self._pieces(await asyncio.to_thread(self._prepare, ask, settings, post), queue)

    def _prepare(self, ask: Ask, settings: Settings, post: Post) -> Running:
        try:
            return self.engine.prepare(ask.messages, settings, post)
        except SchemaError as error:
            raise Refusal(400, f"response_format: {error}", "unsupported_schema", "response_format") from None
        except ValueError as error:  # the engine's one other reason: no room for an answer
            raise Refusal(400, str(error), "context_length_exceeded", "messages") from None

    async def _pieces(self, running: Running, queue: "asyncio.Queue[Item]") -> Pieces:
        running.start()
        item: Item = ""
        try:
            while isinstance(item, str):
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            running.cancel()
            while isinstance(item, str):  # its place in the model is free only when the reply is there
                item = await queue.get()

    async def close(self) -> None:
        pass


# ---------------------------------------------------------------- a server behind this one


class Upstream:
    """vLLM, SGLang, Ollama or another Xinglin. ``name`` is the model shown as the tuned one, where the server has it."""

    slots = 256  # the server behind batches by itself; this bound is only against exhaustion

    def __init__(self, url: str, name: str, key: str = "", transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.fingerprint = f"upstream {httpx.URL(self.url).host}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(10, read=300)
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, transport=transport)
        self._models: list[Model] = []

    async def models(self) -> Sequence[Model]:
        if not self._models:
            try:
                answer = await self._client.get(f"{self.url}/models")
                names = [str(entry["id"]) for entry in answer.raise_for_status().json()["data"]]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise self._down(error) from None
            tuned = self.name if self.name in names else names[0]
            self._models = sorted((Model(name, name == tuned) for name in names), key=lambda model: not model.tuned)
        return self._models

    async def begin(self, ask: Ask) -> Pieces:
        await find(self, ask.model)
        return self._pieces(ask)

    async def _pieces(self, ask: Ask) -> Pieces:
        try:
            async with self._client.stream("POST", f"{self.url}/chat/completions", json=_forward(ask)) as answer:
                if answer.status_code != 200:
                    raise _passed_on(answer.status_code, await answer.aread())
                finish, tokens = "stop", dict[str, int]()
                async for line in answer.aiter_lines():
                    value = _event(line)
                    tokens = value.get("usage") or tokens
                    for choice in value.get("choices", ()):
                        finish = choice.get("finish_reason") or finish
                        if text := choice["delta"].get("content"):
                            yield text
        except httpx.HTTPError as error:
            raise self._down(error) from None
        yield Reply("", finish, tokens.get("prompt_tokens", 0), tokens.get("completion_tokens", 0))

    def _down(self, error: Exception) -> Refusal:
        reason = f"{type(error).__name__} {error}".strip()
        return Refusal(503, f"{self.url} does not answer ({reason}); is it running?", "upstream_unavailable", retry_after=5)

    async def close(self) -> None:
        await self._client.aclose()


def _forward(ask: Ask) -> dict[str, Any]:
    settings = ask.settings
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": ask.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
    }
    if settings.seed is not None:
        body["seed"] = settings.seed
    if settings.stop:
        body["stop"] = list(settings.stop)
    return body


def _event(line: str) -> dict[str, Any]:
    """The value of one line of the stream; empty for comments, blank lines and the end. An error in it is raised."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return {}
    value: dict[str, Any] = json.loads(data)
    if error := value.get("error"):
        raise Refusal(502, f"upstream: {error.get('message', error)}", "upstream_error")
    return value


def _passed_on(status: int, body: bytes) -> Refusal:
    """What the server behind says, with its own status where the client can do something about it."""
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), str(error.get("code") or "upstream_error")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = body.decode(errors="replace")[:200], "upstream_error"
    return Refusal(status if status in (400, 404, 413, 429) else 502, f"upstream: {message}", code)
