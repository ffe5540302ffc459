"""An engine without a model, and a real server around it, for the tests of this folder."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import uvicorn

from xinglin import schema
from xinglin.generation import Post, Reply, Settings, Stream
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


class FakeRunning:
    """One character is one token; ``stop`` strings are cut off as the engine does."""

    def __init__(self, engine: "FakeEngine", text: str, prompt_tokens: int, settings: Settings, post: Post) -> None:
        self.engine = engine
        self.post = post
        self.cancelled = threading.Event()
        ends = [text.find(word) for word in settings.stop if word in text]
        stopped = text[: min(ends)] if ends else text
        kept = stopped[: settings.max_new_tokens]
        self.end = Reply(kept, "stop" if kept == stopped else "length", prompt_tokens, len(kept))

    def start(self) -> None:
        threading.Thread(target=self._run).start()

    def cancel(self) -> None:
        self.cancelled.set()

    def _run(self) -> None:
        self.engine.running += 1
        end = self._write()
        self.engine.running -= 1
        self.post(end)

    def _write(self) -> Reply | Exception:
        for character in self.end.text:
            if self.cancelled.wait(self.engine.pause):
                return replace(self.end, finish_reason="cancelled")
            if character == self.engine.breaks_at:
                return RuntimeError("the fake broke as told")
            self.post(character)
        return self.end


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

    def prepare(self, messages: Sequence[Message], settings: Settings, post: Post) -> FakeRunning:
        self.asked.append({"messages": messages, **asdict(settings)})
        prompt_tokens = sum(len(message["content"]) for message in messages)
        if prompt_tokens >= self.context:
            raise ValueError(f"the prompt has {prompt_tokens} tokens and the model's context holds {self.context}: shorten it")
        return FakeRunning(self, self.answer(messages, settings.tuned), prompt_tokens, settings, post)

    def stream(self, messages: Sequence[Message], **settings: object) -> Stream:
        return Stream(self.prepare, messages, Settings(**settings))


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
    """One slot, so that the queue is easy to fill."""
    return Server("demo", folder, backend or Local(engine or FakeEngine(), "demo", slots=1), waiting, key)
