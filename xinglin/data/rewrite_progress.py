"""What a rewrite says while it works and before it starts: one line on stderr, ``--status``, ``--dry-run``.

Out, on a terminal once a second, else every half minute::

    rewrite: 1240/10000  31.8 rows/s  accepted 1201  rejected 39  failed 0  in flight 64  money 0.4123  left 4 min 35 s
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xinglin.config import Rewrite as Settings
from xinglin.data import journal as journals
from xinglin.data.journal import ACCEPTED, FAILED, REJECTED
from xinglin.llm import Usage

if TYPE_CHECKING:
    from xinglin.data.sending import Sender

WINDOW = 60.0  # seconds over which the rate is measured


def say(text: str) -> None:
    print(f"\r{text}\x1b[K" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


async def show(sender: "Sender") -> None:
    """Until it is cancelled."""
    terminal, started = sys.stderr.isatty(), time.monotonic()
    while True:
        await asyncio.sleep(1 if terminal else 30)
        text = line(sender, started)
        if terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            say(text)


def line(sender: "Sender", started: float) -> str:
    now = time.monotonic()
    recent = sum(1 for moment in sender.finished if moment > now - WINDOW)
    rate = recent / max(min(WINDOW, now - started), 1e-9)
    done = sender.done
    counts = f"accepted {done[ACCEPTED]}  rejected {done[REJECTED]}  failed {done[FAILED]}  in flight {sender.asking}"
    money = f"money {sender.purse.spent:.4f}" if sender.job.settings.prices else "money unknown (rewrite.prices)"
    left = duration((sender.todo - done.total()) / rate) if rate else "unknown"
    trouble = f"  last trouble: {sender.trouble[:60]}" if sender.trouble else ""
    return f"rewrite: {done.total()}/{sender.todo}  {rate:.1f} rows/s  {counts}  {money}  left {left}{trouble}"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def dry_run(settings: Settings, counts: dict[str, int], usages: dict[str, Usage], price: float) -> str:
    """The answer of ``--dry-run``: nothing was sent. ``usages``: expected tokens of each model."""
    known = settings.model in settings.prices
    money = f"{price:.4f} without the cache's discount" if known else f"unknown: rewrite.prices names no {settings.model!r}"
    tokens = "; ".join(f"about {usage.prompt} in, {usage.completion} out ({model})" for model, usage in usages.items()) or "none"
    rows = ", ".join(f"{name} {count}" for name, count in counts.items())
    budget = f"\nbudget  {settings.budget:g}" if settings.budget else ""
    return f"model   {settings.model} at {settings.base_url}\nrows    {rows}\ntokens  {tokens}\nprice   {money}{budget}"


def status(path: Path) -> str:
    """What a running or stopped journal holds."""
    found = journals.read(path)
    states = ", ".join(f"{state} {count}" for state, count in found.states.items())
    rate = found.recent / WINDOW
    left = f", left {duration(found.unfinished / rate)}" if rate and found.unfinished else ""
    tokens = f"{found.prompt_tokens} in ({found.cached_tokens} cached), {found.completion_tokens} out"
    money = f"{found.price:.4f}" + (
        f" (at most {found.lost_price:.4f} more for answers lost or not counted)" if found.lost_price else ""
    )
    return "\n".join(
        (
            f"rows    {found.rows}: {states}",
            f"rate    {rate:.1f} rows/s in the last minute{left}",
            f"tokens  {tokens}",
            f"money   {money}",
        )
    )
