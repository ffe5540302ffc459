"""What every way to an answer shares: the settings of a request, the reply at its end, and the stream between them.

In: ``prepare(messages, settings, post)`` of an engine; what it returns, once started, posts pieces of text from another thread,
then one ``Reply``. Out: ``Stream``, an iterator over the pieces. There is no torch here: the web server opens its port before the
model loads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from xinglin.schema import Message

ROWS = 32  # answers an engine writes at once
LONGEST = 1024  # tokens of an answer where nobody names a number


class SchemaError(ValueError):
    """A JSON schema that cannot be kept."""


@dataclass(frozen=True)
class Settings:
    """How one answer is written. ``temperature`` 0 is greedy; ``sections`` forces the titles and points of the answer schema
    in their order; ``json_schema`` (a JSON text) lets only JSON of that schema through."""

    tuned: bool = True
    max_new_tokens: int = LONGEST
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    sections: bool = False
    json_schema: str = ""


@dataclass(frozen=True)
class Reply:
    """A finished answer. ``finish_reason``: "stop" (it ended by itself), "length" (cut) or "cancelled"; counts are tokens."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


Item = str | Reply | Exception
Post = Callable[[Item], object]


class Running(Protocol):
    """An answer that can be started once, and cancelled at any time after; its ``Reply`` comes either way."""

    def start(self) -> None: ...
    def cancel(self) -> None: ...


Prepare = Callable[[Sequence[Message], Settings, Post], Running]


class Stream:
    """The pieces of one answer as they come; ``close`` stops the generation, ``reply`` is there when the pieces end."""

    def __init__(self, prepare: Prepare, messages: Sequence[Message], settings: Settings) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self.reply: Reply | None = None
        self._running = prepare(messages, settings, self._items.put)
        self._running.start()

    def close(self) -> None:
        self._running.cancel()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.reply:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, Exception):
            raise item
        if isinstance(item, Reply):
            self.reply = item
            raise StopIteration
        return item
