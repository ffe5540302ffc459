"""Answers as they come: one JSON line each, appended at once, so that a killed run goes on where it stopped.

In: pieces of work (a key and a dialogue) and the function that does a batch of them. Out: their results by key. One line::

    {"key": "6c1f…", "kind": "answer", "side": "tuned", "text": "一、…", "finish_reason": "stop", "completion_tokens": 311}

The key hashes the dialogue and all that decides its result (model, adapter, prompt, decoding): lines of another run stay in the
file and are not used.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from xinglin import records
from xinglin.schema import Message

Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One dialogue to be done; ``setup`` names what decides the result beside it."""

    kind: str
    side: str
    setup: str
    messages: list[Message]

    @property
    def key(self) -> str:
        return digest([self.kind, self.setup, self.messages])

    @property
    def size(self) -> int:
        return sum(len(turn["content"]) for turn in self.messages)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:20]


def read(path: Path) -> dict[str, Result]:
    """Results by key; a last line that a kill left half written is dropped, any other broken line raises ``ValueError``."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
    found = {}
    for number, line in enumerate(data[:whole].decode("utf-8").split("\n")[:-1], 1):
        try:
            row = json.loads(line)
            found[row["key"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not an answer ({error}); mend or delete that line") from None
    return found


def collect(
    path: Path, works: Sequence[Work], call: Callable[[list[list[Message]]], Sequence[Result]], batch_size: int
) -> dict[str, Result]:
    """Results of all ``works`` by key: what ``path`` holds already, and the rest through ``call``, longest first.

    A batch that does not fit into memory is halved, down to one dialogue, and the smaller size is kept for the rest of the run.
    A result {"missing": reason} stands for a dialogue that cannot be done: it is said and handed on, and not kept in ``path``, so
    that the next run tries again. {"stop": reason} ends the run with a ``ValueError``, after the others of its batch are kept.
    """
    found = read(path)
    wanted = {work.key: work for work in works}
    todo = sorted((work for key, work in wanted.items() if key not in found), key=lambda work: -work.size)
    if todo:
        _say_plan(path, todo, wanted, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, started = 0, time.monotonic()
    with records.room(path), open(path, "a", encoding="utf-8") as file:
        while done < len(todo):
            batch = todo[done : done + batch_size]
            results = _call(call, [work.messages for work in batch], path)
            if results is None:
                batch_size = max(1, len(batch) // 2)
                say(f"evaluate: out of memory with {len(batch)} at once, going on with {batch_size}")
                continue
            for work, result in zip(batch, results, strict=True):
                found[work.key] = {"key": work.key, "kind": work.kind, "side": work.side, **result}
                _keep(file, work, found[work.key])
            file.flush()
            for result in results:
                if "stop" in result:
                    raise ValueError(result["stop"])
            done += len(batch)
            say(f"evaluate: {todo[0].kind} {todo[0].side} {done}/{len(todo)}, {time.monotonic() - started:.0f} s")
    return {key: found[key] for key in wanted}


def _keep(file: IO[str], work: Work, result: Result) -> None:
    """Append a result, or say why there is none."""
    if "missing" in result:
        say(f"evaluate: no {work.kind} of {work.side} to {work.messages[-1]['content'][:40]!r}: {result['missing']}")
    elif "stop" not in result:
        file.write(json.dumps(result, ensure_ascii=False) + "\n")


def _call(
    call: Callable[[list[list[Message]]], Sequence[Result]], batch: list[list[Message]], path: Path
) -> Sequence[Result] | None:
    """The results of a batch, or None where it did not fit into memory and can still be halved."""
    try:
        return call(batch)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(batch) == 1:
            raise ValueError(
                f"{path}: out of memory with one question; lower evaluate.max_new_tokens or use a quantised base"
            ) from None
        return None


def out_of_memory(error: Exception) -> bool:
    """Torch raises its own class on a GPU and a plain RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _say_plan(path: Path, todo: Sequence[Work], wanted: Mapping[str, Work], found: Mapping[str, Result]) -> None:
    """Say what a going-on run finds: results it uses, and results of another prompt, model or question it leaves alone."""
    kind, side = todo[0].kind, todo[0].side
    others = sum(row["kind"] == kind and row["side"] == side and key not in wanted for key, row in found.items())
    if kept := len(wanted) - len(todo):
        say(f"evaluate: {kept} of {len(wanted)} {kind} results of {side} are in {path.name} already")
    if others:
        say(
            f"evaluate: {others} {kind} results of {side} in {path.name} are of another prompt, model or question: kept, not used"
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
