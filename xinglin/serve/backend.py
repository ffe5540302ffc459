"""Where answers come from: the engine in this process, or (module ``upstream``) an OpenAI-compatible server behind this one.

In: an ``Ask``. Out: ``await begin(ask)`` refuses what cannot be answered and returns the pieces: text as it comes, then one
``Reply``. Reading the first piece starts the generation, closing the pieces stops it.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

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
