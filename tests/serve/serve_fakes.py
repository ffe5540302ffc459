"""An engine without a model, and a real server around it, for the tests of this folder."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from xinglin import schema
from xinglin.schema import Message
from xinglin.serve.answering import Server
from xinglin.serve.api import create_app
from xinglin.serve.backend import Backend, Local

POINTS = (
    ("上腹隐痛两周，进食后加重，没有呕血、黑便和消瘦。", "考虑慢性胃炎或功能性消化不良，需要排除消化性溃疡。"),
    ("饮食不规律、幽门螺杆菌感染和精神紧张都可能引起胃黏膜炎症。", "胆囊疾病多在右上腹痛，心脏疾病可有胸闷，应当一并排查。"),
    ("建议到消化内科就诊，完善碳十三呼气试验，必要时做胃镜。", "规律进食、少吃辛辣和酒🙂；是否用抑酸药请由医生决定。"),
)
TUNED = schema.Answer.from_points(POINTS).render()
BASE = "这个问题要看具体情况，建议注意饮食，多休息，如果不舒服可以去医院看看。"


@dataclass(frozen=True)
class FakeReply:
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class FakeStream:
    """One character is one token; ``stop`` strings are cut off as the engine does."""

    def __init__(self, engine: "FakeEngine", text: str, prompt_tokens: int, limit: int, stop: Sequence[str]) -> None:
        self.engine = engine
        self.closed = threading.Event()
        self.reply: FakeReply | None = None
        ends = [text.find(word) for word in stop if word in text]
        stopped = text[: min(ends)] if ends else text
        finish = "length" if len(stopped) > limit else "stop"
        self.end = FakeReply(stopped[:limit], finish, prompt_tokens, len(stopped[:limit]))

    def __iter__(self) -> Iterator[str]:
        self.engine.running += 1
        try:
            for character in self.end.text:
                if self.closed.wait(self.engine.pause):
                    return
                if character == self.engine.breaks_at:
                    raise RuntimeError("the fake broke as told")
                yield character
            self.reply = self.end
        finally:
            self.engine.running -= 1

    def close(self) -> None:
        self.closed.set()


@dataclass
class FakeEngine:
    """``answer(messages, tuned)`` is what it says; ``asked`` keeps what it was asked; ``pause`` is seconds per character."""

    name: str = "Qwen2.5-fake"
    adapter: Path | None = Path("adapter")
    fingerprint: str = "fake-prompt"
    answer: Callable[[Sequence[Message], bool], str] = lambda messages, tuned: TUNED if tuned else BASE
    pause: float = 0.0
    breaks_at: str = "\0"
    context: int = 8000
    running: int = 0
    asked: list[dict[str, object]] = field(default_factory=list)

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
    ) -> FakeStream:
        self.asked.append({"messages": messages, "tuned": tuned, "temperature": temperature, "top_p": top_p, "seed": seed})
        prompt_tokens = sum(len(message["content"]) for message in messages)
        if prompt_tokens >= self.context:
            raise ValueError(f"the prompt has {prompt_tokens} tokens and the model's context holds {self.context}: shorten it")
        return FakeStream(self, self.answer(messages, tuned), prompt_tokens, max_new_tokens, stop)


@contextlib.contextmanager
def running(server: Server) -> Iterator[str]:
    """The server on a free port of this machine, in a thread; yields its address."""
    settings = uvicorn.Config(create_app(server), port=0, log_level="warning", timeout_graceful_shutdown=2)
    runner = uvicorn.Server(settings)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        while not runner.started:
            time.sleep(0.01)
        port = runner.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        runner.should_exit = True
        thread.join()


def serving(
    folder: Path, engine: FakeEngine | None = None, backend: Backend | None = None, waiting: int = 64, key: str = ""
) -> Server:
    return Server("demo", folder, backend or Local(engine or FakeEngine(), "demo"), waiting, key)
