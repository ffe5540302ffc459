"""The two sides of a comparison: whatever answers a dialogue, and what its answers depend on.

In: an engine with its adapter on or off, a file of answers, or an OpenAI-compatible endpoint. Out: a ``Side``. Both sides get the
same messages of ``schema.messages``, greedy decoding and the same length limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.engine import Engine
from xinglin.evaluate.answers import Result, digest
from xinglin.schema import Message

Batch = list[list[Message]]


@dataclass(frozen=True)
class Side:
    """``complete`` answers a batch; ``losses`` scores given answers, None where the weights are out of reach."""

    name: str
    label: str
    setup: str
    complete: Callable[[Batch], Sequence[Result]]
    losses: Callable[[Batch], Sequence[Result]] | None


def pair(engine: Engine, quantization: str, max_new_tokens: int) -> tuple[Side, Side]:
    """Base and tuned of one engine in memory: the same weights with the adapter off and on."""
    assert engine.adapter, "an engine without adapter has one side only"
    adapter = records.sha256(engine.adapter / "adapter_model.safetensors")
    base = of_engine(engine, "base", False, {"quantization": quantization}, max_new_tokens)
    tuned = of_engine(engine, "tuned", True, {"quantization": quantization, "adapter": adapter}, max_new_tokens)
    return base, tuned


def of_engine(engine: Engine, name: str, tuned: bool, identity: dict[str, Any], max_new_tokens: int) -> Side:
    """One side of an engine; ``identity`` is what, beside model and prompt, decides its answers."""
    known = {"model": engine.name, "prompt": engine.fingerprint, "max_new_tokens": max_new_tokens, **identity}
    label = f"{engine.name} + {engine.adapter.parent.parent.name}" if tuned and engine.adapter else engine.name
    return Side(
        name,
        label,
        digest(known),
        partial(_complete, engine, tuned, max_new_tokens),
        partial(_losses, engine, tuned),
    )


def _complete(engine: Engine, tuned: bool, max_new_tokens: int, batch: Batch) -> list[Result]:
    return [asdict(reply) for reply in engine.complete(batch, tuned=tuned, max_new_tokens=max_new_tokens)]


def _losses(engine: Engine, tuned: bool, batch: Batch) -> list[Result]:
    return [{"loss": loss, "tokens": tokens} for loss, tokens in engine.losses(batch, tuned=tuned)]


def canary(engine: Engine, questions: Batch) -> None:
    """Fail where the adapter changes nothing: the loss of fixed answers is the same with it on and off.

    Raises ``ValueError``: an evaluation of base against itself would report "no difference" of an adapter never used.
    """
    if engine.losses(questions, tuned=True) == engine.losses(questions, tuned=False):
        raise ValueError(
            f"{engine.adapter}: the adapter changes nothing (all its weights are zero, or it was never trained); train again"
        )


def adapter_files(adapter: Path) -> list[Path]:
    """The files that decide what an adapter does. Raises ``ValueError`` naming the verb that makes them."""
    files = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"{missing[0]}: not there; `xinglin train` makes the adapter")
    return files
