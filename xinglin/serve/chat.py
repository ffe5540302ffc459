"""``xinglin chat``: the same model, prompt and red-flag rules in a terminal.

In: questions from the keyboard, ``-q``, or a pipe. Out: the answer on stdout as it comes, cautions and the label under it; the
rest on stderr. Red flags come first: before a model is loaded or a server is asked, where the question is there already::

    $ echo 胃疼怎么办 | xinglin chat recipes/demo.yaml
    一、…
    1. …：…
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from xinglin import schema
from xinglin.config import Recipe
from xinglin.generation import Reply
from xinglin.safety.triage import every
from xinglin.schema import Message
from xinglin.serve import answer
from xinglin.serve.launch import adapter_of, say, upstream
from xinglin.serve.remote import connect

HELP = """\
/clear   forget the conversation        /retry   answer the last question again, differently
/help    this text                      /exit    leave (also Ctrl-D)
\"\"\"      begins and ends a question of several lines; Ctrl-C stops an answer"""
RETRY_TEMPERATURE = 0.7
SIDES = {True: "tuned", False: "base"}


class Talking(Protocol):
    @property
    def reply(self) -> Reply | None: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class Talker(Protocol):
    """What is used of an engine, or of a server in its place."""

    adapter: Path | None

    def stream(self, messages: Sequence[Message], **settings: Any) -> Talking: ...


@dataclass
class Chat:
    """One conversation; with two ``sides`` each keeps a history of its own.

    ``asked``: all questions, also those that got no answer: their red flags stay.
    """

    engine: Talker
    sides: Sequence[bool]
    write: Callable[[str], object]
    sections: bool = True
    histories: dict[bool, list[Message]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def ask(self, question: str) -> None:
        """Answer on every side, the emergency texts first."""
        self.asked.append(question)
        self.write(warning(self.asked))
        self.answer()

    def answer(self, temperature: float = 0.0) -> None:
        """Answer the last question."""
        question = self.asked[-1]
        for tuned in self.sides:
            if len(self.sides) > 1:
                self.write(f"── {SIDES[tuned]} ──\n")
            self._answer(question, tuned, temperature)
        self.write(f"\n〔{schema.AI_LABEL}〕{schema.DISCLAIMER}\n")

    def _answer(self, question: str, tuned: bool, temperature: float) -> None:
        history = self.histories.setdefault(tuned, [])
        prompt = schema.messages(question, history)
        stream = self.engine.stream(prompt, tuned=tuned, temperature=temperature, sections=self.sections)
        questions, text = [turn["content"] for turn in prompt if turn["role"] == "user"], ""
        try:
            for piece in stream:
                text += piece
                self.write(piece)
        except KeyboardInterrupt:
            stream.close()
            say("\nstopped")
        self.write("\n")
        if stream.reply and stream.reply.finish_reason == "length":
            say("the answer reached its longest length and was cut")
        for caution in answer.cautions(text, questions):
            self.write(f"⚠ {caution['message']}\n")
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]

    def retry(self) -> None:
        """Take the last exchange back, where there was one, and answer its question again."""
        for history in self.histories.values():
            if history and history[-2]["content"] == self.asked[-1]:
                del history[-2:]
        self.write(warning(self.asked))
        self.answer(RETRY_TEMPERATURE)

    def clear(self) -> None:
        self.histories.clear()
        self.asked.clear()


def warning(questions: Sequence[str]) -> str:
    """What stands before an answer: the fixed text of every red flag in the questions."""
    return "".join(f"【{alert.message}】\n\n" for alert in every(questions))


def chat(recipe: Recipe, adapter: Path | None = None, question: str = "", base: bool = False, compare: bool = False) -> None:
    """Talk in the terminal. ``base``: without the adapter; ``compare``: base first, then tuned.

    A question that is there already is read for red flags before anything that takes time or may fail.
    """
    if question or not sys.stdin.isatty():
        question = _one_question(question)
        _write(warning([question]))
    if recipe.serve.upstream:
        with connect(upstream(recipe)) as remote:
            talk_with(remote, recipe, question, base, compare)
    else:
        talk_with(local(recipe, adapter or adapter_of(recipe)), recipe, question, base, compare)


def talk_with(engine: Talker, recipe: Recipe, question: str, base: bool, compare: bool) -> None:
    """Answer ``question``, whose red flags were shown, or converse where it is empty."""
    if compare and engine.adapter is None:
        raise ValueError("--compare needs a base and a tuned model: run `xinglin train` first, or name an adapter with --adapter")
    sides = (False, True) if compare else (engine.adapter is not None and not base,)
    talk = Chat(engine, sides, _write, recipe.serve.structure == "enforced")
    if question:
        talk.asked.append(question)
        talk.answer()
    else:
        converse(talk, keyboard())


def local(recipe: Recipe, adapter: Path | None) -> Talker:
    """The model in this process; says what it is where that is not what one would expect."""
    if adapter is None:
        say(f"no adapter in {recipe.folder / '4-train'} yet: this is the base model alone (`xinglin train` makes one)")
    if recipe.model == "demo":
        say("The built-in model shows how everything works; what it says has no medical meaning.")
    from xinglin.engine import Engine  # torch, only when there is something to load

    return Engine.load(recipe.base, adapter, recipe.serve.quantization, recipe.hub)


def _one_question(question: str) -> str:
    text = (question or sys.stdin.read()).strip()
    if not text:
        raise ValueError('no question: give one with -q "…" or through a pipe')
    return text


def _write(text: str) -> None:
    print(text, end="", flush=True)


def keyboard() -> Iterator[str]:
    """Questions and commands as they are typed; Ctrl-D ends."""
    say(f"{schema.DISCLAIMER}\n/help lists the commands.")
    while True:
        try:
            line = input("\n> ").strip()
            if line.startswith('"""'):
                line = _several_lines(line[3:])
        except EOFError:
            return
        yield line


def _several_lines(first: str) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input("… "))
    return "\n".join(lines).rstrip().removesuffix('"""').strip()


def converse(talk: Chat, lines: Iterator[str]) -> None:
    """Questions to the model, commands to the conversation, until /exit."""
    for line in lines:
        if line in ("/exit", "/quit", "exit", "quit"):
            return
        if line == "/clear":
            talk.clear()
            say("cleared")
        elif line == "/retry" and talk.asked:
            _try(talk.retry)
        elif line.startswith("/"):
            say("nothing to answer again" if line == "/retry" else HELP)
        elif line:
            _try(partial(talk.ask, line))


def _try(asking: Callable[[], None]) -> None:
    try:
        asking()
    except ValueError as error:
        say(f"{error}; /clear starts anew")
