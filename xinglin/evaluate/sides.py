"""The two sides of a comparison: whatever answers a dialogue, and what its answers depend on.

In: an engine with its adapter on or off, a file of answers, or an OpenAI-compatible endpoint. Out: a ``Side``. Both sides get the
same messages of ``schema.messages``, greedy decoding and the same length limit::

    Side(name="tuned", label="Qwen2.5-7B-Instruct + run", setup="9d1c…", complete=…, losses=…, first_tokens=…)
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from xinglin import hub, llm, records
from xinglin.engine import Engine, encode
from xinglin.evaluate import endpoint
from xinglin.evaluate.answers import Result, Work, collect, digest
from xinglin.evaluate.exams import LETTERS
from xinglin.generation import Reply, Stream
from xinglin.schema import Message

Batch = list[list[Message]]
TEMPERATURE = 0.7  # of repeated samples; answers that are compared are greedy


@dataclass(frozen=True)
class Side:
    """``complete`` answers a batch with at most so many tokens; ``losses`` scores given answers and ``letters`` the letters of an
    exam as first token of the answer, ``sample`` answers under a seed; these are None where the weights are out of reach.
    ``prompt`` is the fingerprint of the prompt it answers, "" where that is not known; ``forced`` answers with the three sections
    forced, as serve.structure=enforced does."""

    name: str
    label: str
    setup: str
    complete: Callable[[Batch, int], Sequence[Result]]
    losses: Callable[[Batch], Sequence[Result]] | None = None
    letters: Callable[[Batch], Sequence[Result]] | None = None
    sample: Callable[[Batch, int, int], Sequence[Result]] | None = None
    prompt: str = ""
    forced: Callable[[Batch, int], Sequence[Result]] | None = None


@dataclass(frozen=True)
class Desk:
    """Where answers are kept and how many dialogues are done at once."""

    path: Path
    batch_size: int

    def answers(self, side: Side, prompts: Batch, max_new_tokens: int, kind: str = "answer") -> list[Result]:
        setup = digest([side.setup, max_new_tokens])
        return self._collect(kind, side, setup, prompts, lambda batch: side.complete(batch, max_new_tokens))

    def samples(self, side: Side, prompts: Batch, max_new_tokens: int, seed: int) -> list[Result]:
        assert side.sample, f"{side.name} has no weights at hand"
        call = partial(_seeded, side.sample, max_new_tokens, seed)
        return self._collect(f"sample {seed}", side, digest([side.setup, max_new_tokens, seed]), prompts, call)

    def losses(self, side: Side, dialogues: Batch) -> list[Result]:
        assert side.losses, f"{side.name} has no weights at hand"
        return self._collect("loss", side, side.setup, dialogues, side.losses)

    def letters(self, side: Side, prompts: Batch, kind: str = "letters") -> list[Result]:
        assert side.letters, f"{side.name} has no weights at hand"
        return self._collect(kind, side, side.setup, prompts, side.letters)

    def _collect(
        self, kind: str, side: Side, setup: str, prompts: Batch, call: Callable[[Batch], Sequence[Result]]
    ) -> list[Result]:
        """Results in the order of the prompts, through the file of answers."""
        works = [Work(kind, side.name, setup, messages) for messages in prompts]
        found = collect(self.path, works, call, self.batch_size)
        return [found[work.key] for work in works]


# ---------------------------------------------------------------- an engine


def pair(engine: Engine, quantization: str) -> tuple[Side, Side]:
    """Base and tuned of one engine in memory: the same weights with the adapter off and on."""
    assert engine.adapter, "an engine without adapter has one side only"
    adapter = [records.sha256(path) for path in hub.tuned_files(engine.adapter)[1:]]
    base = of_engine(engine, "base", False, {"quantization": quantization})
    return base, of_engine(engine, "tuned", True, {"quantization": quantization, "adapter": adapter})


def of_engine(engine: Engine, name: str, tuned: bool, identity: dict[str, Any]) -> Side:
    """One side of an engine; ``identity`` is what, beside model and prompt, decides its answers."""
    setup = digest({"model": engine.name, "prompt": engine.fingerprint, **identity})
    label = f"{engine.name} + {'/'.join(engine.adapter.resolve().parts[-3:])}" if tuned and engine.adapter else engine.name
    return Side(
        name,
        label,
        setup,
        partial(_complete, engine, tuned),
        partial(_losses, engine, tuned),
        partial(_letters, engine, tuned),
        partial(_sample, engine, tuned),
        engine.fingerprint,
        partial(_forced, engine, tuned),
    )


def as_served(side: Side) -> Side:
    """The same side with the three sections forced on its answers."""
    assert side.forced, f"{side.name} has no weights at hand"
    return replace(
        side,
        name=f"{side.name} as served",
        setup=digest([side.setup, "enforced"]),
        complete=side.forced,
        losses=None,
        sample=None,
    )


def _complete(engine: Engine, tuned: bool, batch: Batch, max_new_tokens: int) -> list[Result]:
    def call(rows: Batch) -> list[Result]:
        return [asdict(reply) for reply in engine.complete(rows, tuned=tuned, max_new_tokens=max_new_tokens)]

    return _in_room(engine, batch, max_new_tokens, call)


def _forced(engine: Engine, tuned: bool, batch: Batch, max_new_tokens: int) -> list[Result]:
    def call(rows: Batch) -> list[Result]:
        settings = {"tuned": tuned, "max_new_tokens": max_new_tokens, "sections": True}
        started = [engine.stream(messages, **settings) for messages in rows]  # written together from here on
        return [asdict(_drained(stream)) for stream in started]

    return _in_room(engine, batch, max_new_tokens, call)


def _drained(stream: Stream) -> Reply:
    for _ in stream:
        pass
    assert stream.reply, "a stream ends with its reply"
    return stream.reply


def _sample(engine: Engine, tuned: bool, batch: Batch, max_new_tokens: int, seed: int) -> list[Result]:
    def call(rows: Batch) -> list[Result]:
        replies = engine.complete(rows, tuned=tuned, max_new_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed)
        return [asdict(reply) for reply in replies]

    return _in_room(engine, batch, max_new_tokens, call)


def _in_room(engine: Engine, batch: Batch, wanted: int, call: Callable[[Batch], Sequence[Result]]) -> list[Result]:
    """Results of a batch: a prompt that leaves room for fewer than the wanted tokens is done by itself, so that it shortens no
    other answer; one that leaves no room is missing."""
    lengths = [len(encode(engine.tokenizer, messages)) for messages in batch]
    together = [index for index, length in enumerate(lengths) if length + wanted <= engine.context]
    alone = [[index] for index, length in enumerate(lengths) if engine.context - wanted < length < engine.context]
    results = [_too_long(length, engine) for length in lengths]
    for group in [together, *alone] if together else alone:
        for index, result in zip(group, call([batch[index] for index in group]), strict=True):
            results[index] = result
    return results


def _too_long(tokens: int, engine: Engine) -> Result:
    return {"missing": f"it has {tokens} tokens, the model's context holds {engine.context}"}


def _seeded(
    sample: Callable[[Batch, int, int], Sequence[Result]], max_new_tokens: int, seed: int, batch: Batch
) -> Sequence[Result]:
    return sample(batch, max_new_tokens, seed)


def _losses(engine: Engine, tuned: bool, batch: Batch) -> list[Result]:
    def call(rows: Batch) -> list[Result]:
        return [{"loss": loss, "tokens": tokens} for loss, tokens in engine.losses(rows, tuned=tuned)]

    return _in_room(engine, batch, 0, call)


def _letters(engine: Engine, tuned: bool, batch: Batch) -> list[Result]:
    def call(rows: Batch) -> list[Result]:
        return [{"scores": scores} for scores in engine.first_tokens(rows, LETTERS, tuned=tuned)]

    return _in_room(engine, batch, 1, call)


def canary(engine: Engine, dialogues: Batch) -> None:
    """Fail where the adapter changes nothing: the loss of given answers is the same with it on and off.

    Raises ``ValueError``: an evaluation of base against itself would report "no difference" of an adapter never used.
    """
    if engine.losses(dialogues, tuned=True) == engine.losses(dialogues, tuned=False):
        raise ValueError(f"{engine.adapter}: the adapter changes nothing (its weights are zero, or not its base's); train again")


# ---------------------------------------------------------------- anything that can be named


def two(first: str, second: str, prompts: Batch, quantization: str) -> tuple[Side, Side]:
    """The sides two words of the command line name; a base and its adapter share one model in memory."""
    if (Path(second) / "adapter_config.json").is_file() and _base_of(Path(second)) == _place(first):
        engine = Engine.load(first, Path(second), quantization)
        answer: Message = {"role": "assistant", "content": "建议就医。"}
        canary(engine, [[*messages, answer] for messages in prompts[:4]])
        return pair(engine, quantization)
    return named(first, "base", prompts, quantization), named(second, "tuned", prompts, quantization)


def _base_of(adapter: Path) -> str:
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    revision = f"@{settings['revision']}" if settings.get("revision") else ""
    return _place(settings["base_model_name_or_path"] + revision)


def _place(model: str) -> str:
    """A folder by its full path, a hub name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def named(argument: str, name: str, prompts: Batch, quantization: str = "none") -> Side:
    """The side a word of the command line names: URL#MODEL, a .jsonl of answers, results.json of an earlier
    comparison (results.json#base for its other side), an adapter folder, a model folder or name."""
    path = Path(argument)
    if argument.startswith(("http://", "https://")):
        url, _, model = argument.partition("#")
        if not model:
            raise ValueError(f"{argument}: which model there? Write {argument}#MODEL")
        return of_endpoint(llm.endpoint(url, model), name)
    if path.suffix == ".jsonl":
        return of_file(path, name, prompts)
    if path.name.startswith("results.json"):
        return of_results(path, name, prompts)
    if (path / "adapter_config.json").is_file():
        engine = Engine.load(_base_of(path), path, quantization)
        identity = {"quantization": quantization, "adapter": records.sha256(path / "adapter_model.safetensors")}
        return of_engine(engine, name, True, identity)
    return of_engine(Engine.load(argument, None, quantization), name, False, {"quantization": quantization})


def _given(path: Path, number: int, line: str) -> dict[str, str]:
    """One line of an answer file."""
    try:
        row = json.loads(line)
        return {"question": row["question"].strip(), "answer": row["answer"], "finish_reason": row.get("finish_reason", "stop")}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f'{path}:{number}: a line of an answer file is {{"question": …, "answer": …}}') from None


def of_endpoint(target: llm.Endpoint, name: str) -> Side:
    setup = digest([target.base_url, target.model])
    return Side(name, f"{target.model} @ {target.base_url}", setup, partial(endpoint.answer, target))


def of_file(path: Path, name: str, prompts: Batch) -> Side:
    """Answers given in a file, one {"question", "answer"} a line. Raises ``ValueError`` where questions have none."""
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    rows = [_given(path, number, line) for number, line in lines if line.strip()]
    return _of_rows(path, name, prompts, [(row["question"], row) for row in rows], lambda messages: messages[-1]["content"])


def of_results(path: Path, name: str, prompts: Batch) -> Side:
    """One side of an earlier comparison: results.json, or results.json#base."""
    file, _, side = path.name.partition("#")
    results = json.loads(path.with_name(file).read_text(encoding="utf-8"))
    rows = [
        (
            _said([*pair["history"], {"content": pair["question"]}]),
            {**pair[side or "tuned"], "answer": pair[side or "tuned"]["text"]},
        )
        for pair in results["pairs"]
    ]
    made = _of_rows(path.with_name(file), name, prompts, rows, lambda messages: _said(messages[1:]))
    return replace(made, label=str(path), prompt=results["repeat"].get("prompt", ""))


def _said(messages: Sequence[Any]) -> str:
    return "\n".join(turn["content"] for turn in messages)


def _of_rows(
    path: Path, name: str, prompts: Batch, rows: Sequence[tuple[str, dict[str, Any]]], key: Callable[[list[Message]], str]
) -> Side:
    known: dict[str, dict[str, Any]] = {}
    for question, row in rows:
        if known.setdefault(question.strip(), row)["answer"] != row["answer"]:
            raise ValueError(f"{path}: two different answers to {question[:40]!r}; keep one")
    missing = [key(messages) for messages in prompts if key(messages).strip() not in known]
    if missing:
        raise ValueError(
            f"{path}: {len(rows)} answers, but none to {len(missing)} of {len(prompts)} questions: {missing[0][:40]!r}"
        )

    def complete(batch: Batch, max_new_tokens: int) -> list[Result]:
        found = [known[key(messages).strip()] for messages in batch]
        return [{"text": row["answer"], "finish_reason": row["finish_reason"]} for row in found]

    return Side(name, path.name, records.sha256(path), complete)


def same_prompt(both: tuple[Side, Side]) -> None:
    """Raises ``ValueError`` where the two sides are known to answer different prompts."""
    first, second = both
    if first.prompt and second.prompt and first.prompt != second.prompt:
        raise ValueError(
            f"{first.label} answers prompt {first.prompt}, {second.label} prompt {second.prompt}: "
            "different work cannot be compared; answer again with one version and one chat template"
        )
