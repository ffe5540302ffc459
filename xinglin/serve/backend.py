"""Where answers come from: the engine in this process, or any OpenAI-compatible server behind this one.

In: an ``Ask``. Out: ``await begin(ask)`` refuses what cannot be answered and returns the pieces: text as it comes, then one
``Finished``. Closing the pieces stops the generation.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from xinglin.schema import Message
from xinglin.serve.protocol import Ask, Refusal

LONGEST = 1024  # tokens of an answer where the request names no number


@dataclass(frozen=True)
class Model:
    """A name clients ask for; ``tuned``: with the adapter."""

    id: str
    tuned: bool


@dataclass(frozen=True)
class Finished:
    """The end of an answer: "stop" or "length", and the token counts."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


Pieces = AsyncGenerator[str | Finished, None]


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


class EngineReply(Protocol):
    @property
    def finish_reason(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...


class EngineStream(Protocol):
    @property
    def reply(self) -> EngineReply | None: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class AnyEngine(Protocol):
    """What is used of ``xinglin.engine.Engine``."""

    name: str
    adapter: Path | None
    fingerprint: str

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tuned: bool = True,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> EngineStream: ...


class Local:
    """Base and tuned of one engine. The tuned model has the name of the recipe, the base that of its folder or hub."""

    slots = 1  # the engine writes one answer at a time

    def __init__(self, engine: AnyEngine, name: str) -> None:
        self.engine = engine
        self.fingerprint = engine.fingerprint
        base = engine.name if engine.name != name else f"{name}-base"
        self._models = [Model(name, True), Model(base, False)] if engine.adapter else [Model(base, False)]
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="generate")

    async def models(self) -> Sequence[Model]:
        return self._models

    async def begin(self, ask: Ask) -> Pieces:
        model = await find(self, ask.model)
        return self._pieces(await asyncio.to_thread(self._stream, ask, model.tuned))

    def _stream(self, ask: Ask, tuned: bool) -> EngineStream:
        limit = ask.max_tokens or LONGEST
        try:
            return self.engine.stream(
                ask.messages,
                tuned=tuned,
                max_new_tokens=limit,
                temperature=ask.temperature,
                top_p=ask.top_p,
                seed=ask.seed,
                stop=ask.stop,
            )
        except ValueError as error:  # the engine's one reason: no room for an answer
            raise Refusal(400, str(error), "context_length_exceeded", "messages") from None

    async def _pieces(self, stream: EngineStream) -> Pieces:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | Finished | Exception] = asyncio.Queue()

        def post(item: str | Finished | Exception) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        work = loop.run_in_executor(self._threads, _pump, stream, post)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, Finished):
                    return
        finally:
            stream.close()
            await asyncio.shield(work)  # the model is free only when the thread has left it

    async def close(self) -> None:
        self._threads.shutdown(wait=False)


def _pump(stream: EngineStream, post: Any) -> None:
    """Hand the pieces over to the event loop; runs in a thread of its own."""
    try:
        for piece in stream:
            post(piece)
        if reply := stream.reply:
            post(Finished(reply.finish_reason, reply.prompt_tokens, reply.completion_tokens))
    except Exception as error:  # raised again where the pieces are read
        post(error)


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
        yield Finished(finish, tokens.get("prompt_tokens", 0), tokens.get("completion_tokens", 0))

    def _down(self, error: Exception) -> Refusal:
        reason = f"{type(error).__name__} {error}".strip()
        return Refusal(503, f"{self.url} does not answer ({reason}); is it running?", "upstream_unavailable", retry_after=5)

    async def close(self) -> None:
        await self._client.aclose()


def _forward(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": ask.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= {"temperature": ask.temperature, "top_p": ask.top_p, "max_tokens": ask.max_tokens or LONGEST}
    if ask.seed is not None:
        body["seed"] = ask.seed
    if ask.stop:
        body["stop"] = list(ask.stop)
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
