"""What every way to an answer shares: the settings of a request, the reply at its end, and the stream between them.

In: ``begin(messages, settings, post)`` of an engine, which posts pieces of text from a thread of its own, then one ``Reply``.
Out: ``Stream``, an iterator over the pieces. Without torch, so that the web server opens its port before the model loads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from xinglin.schema import Message


@dataclass(frozen=True)
class Settings:
    """How one answer is written. ``temperature`` 0 is greedy; ``sections`` forces the titles and points of the answer schema
    in their order; ``json_schema`` (a JSON text) lets only JSON of that schema through."""

    tuned: bool = True
    max_new_tokens: int = 1024
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
Begin = Callable[[Sequence[Message], Settings, Post], Callable[[], None]]


class Stream:
    """The pieces of one answer as they come; ``close`` stops the generation, ``reply`` is there when the pieces end."""

    def __init__(self, begin: Begin, messages: Sequence[Message], settings: Settings) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self.reply: Reply | None = None
        self.close = begin(messages, settings, self._items.put)

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
