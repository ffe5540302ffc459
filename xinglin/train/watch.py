"""Watch: what a person who looks at the curves would notice, said while there is time to stop.

In: the lines of ``log.jsonl`` so far. Out: a complaint in one line, or nothing::

    gradient norm 48.1 at step 120 is 16 times its median 3.0: training is falling apart; lower train.learning_rate
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

EXPLODED = 10  # times the median of the run so far
ENOUGH = 8  # lines before a median means something
RISES = 3  # evaluations in a row, from the first on


def not_finite(line: dict[str, Any], scaled: bool = False) -> str:
    """Why training has to stop at this line; nothing while every number is one.

    ``scaled``: in fp16 a gradient that overflows is usual, its step is left out and the loss scale halved.
    """
    watched = ("loss", "eval_loss") if scaled else ("loss", "eval_loss", "grad_norm")
    broken = [f"{key} {line[key]}" for key in watched if not math.isfinite(line.get(key, 0))]
    return (
        f"{', '.join(broken)} at step {line['step']} is not a number to learn from; lower train.learning_rate" if broken else ""
    )


def complaint(lines: Sequence[dict[str, Any]]) -> str:
    """What the newest line shows to be going wrong."""
    return _exploding(lines) or _rising(lines)


def _exploding(lines: Sequence[dict[str, Any]]) -> str:
    norms = [line["grad_norm"] for line in lines if math.isfinite(line.get("grad_norm", math.nan))]
    if not math.isfinite(lines[-1].get("grad_norm", math.nan)) or len(norms) <= ENOUGH:
        return ""
    median, last = statistics.median(norms[:-1]), norms[-1]
    if last <= EXPLODED * median:
        return ""
    times = f"{last / median:.0f} times its median {median:.3g}" if median else "after norms of 0"
    return (
        f"gradient norm {last:.3g} at step {lines[-1]['step']} is {times}: training is falling apart; lower train.learning_rate"
    )


def _rising(lines: Sequence[dict[str, Any]]) -> str:
    losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    if "eval_loss" not in lines[-1] or len(losses) != RISES + 1 or sorted(losses) != losses or losses[0] == losses[-1]:
        return ""
    rise = f"validation loss has only risen, {losses[0]:.4g} to {losses[-1]:.4g} by step {lines[-1]['step']}"
    return f"{rise}: the rows are learnt by heart; fewer train.epochs, a lower train.learning_rate or more rows"


def stopped_early(lines: Sequence[dict[str, Any]], step: int, total: int) -> str:
    """Why a run ended before its last step; nothing for one that did not."""
    evaluations = [(line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line]
    if step >= total or not evaluations:
        return ""
    best, at = min(evaluations)
    return f"stopped at step {step} of {total}: no better validation loss than {best:.4g} of step {at}, whose adapter is kept"
