"""The log: a line for every logged step, on disk and on stderr, and the tables and curves made of it.

In: what Trainer logs. Out: ``log.jsonl``, ``log.csv``, ``loss.png`` and ``report.html``. A line::

    {"step": 18, "epoch": 0.6, "loss": 1.9312, "learning_rate": 0.0028, "tokens_per_second": 1904.2, "memory_gib": 0.9}
"""

import csv
import json
import math
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xinglin import plots, processes, records
from xinglin.train import watch

KEPT = ("loss", "eval_loss", "learning_rate", "grad_norm")
# Of pairs and of GRPO; None or NaN where no row is of that kind.
REWARDS = re.compile(r"(eval_)?(reward|rewards/(accuracies|margins|\w+/mean))")


class Log(TrainerCallback):
    """Appends every log line to ``log.jsonl`` and shows it on stderr; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, tokens: int) -> None:
        self.path = path
        self.tokens_per_epoch = tokens
        self.started = (0.0, 0.0)
        self.seen: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """What was logged; a line that a full disk cut off has no end and does not count."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        kept = (
            [line for line in self.lines() if line["step"] <= state.global_step]
            if self.path.exists() and state.global_step
            else []
        )
        if processes.first():
            records.write_jsonl(self.path, kept)
        self.seen = kept
        self.started = (time.monotonic(), state.epoch or 0.0)
        if state.global_step:
            say(f"train: going on from step {state.global_step} of {state.max_steps}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        values = {key: value for key, value in (logs or {}).items() if key in KEPT or REWARDS.fullmatch(key)}
        if not values:
            return
        values = {key: value for key, value in values.items() if key in KEPT or (value is not None and math.isfinite(value))}
        if broken := watch.not_finite({"step": state.global_step, **values}, args.fp16):
            raise ValueError(f"train: {broken}")
        began, epoch = self.started
        passed = time.monotonic() - began
        rate = ((state.epoch or 0.0) - epoch) * self.tokens_per_epoch / max(passed, 1e-9)
        line = {
            "step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **values,
            "tokens_per_second": round(rate, 1), "memory_gib": round(peak_memory() / 2**30, 2),
        }  # fmt: skip
        if processes.first():
            with records.room(self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(records.to_json(line) + "\n")
        self.seen.append(line)
        if args.disable_tqdm:
            done = (state.epoch or 0.0) - epoch
            left = passed / max(done, 1e-9) * (state.num_train_epochs - (state.epoch or 0.0))
            shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            place = f"step {state.global_step}/{state.max_steps}  epoch {line['epoch']:.2f}"
            say(f"{place}  {shown}  {rate:.0f} tokens/s  {line['memory_gib']} GiB  {left:.0f} s left")
        if warning := watch.complaint(self.seen):
            say(f"train: {warning}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if reason := watch.stopped_early(self.seen, state.global_step, state.max_steps):
            say(f"train: {reason}")


def peak_memory() -> int:
    """Most bytes taken so far: on the GPU, or resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_curves(folder: Path, lines: Sequence[dict[str, Any]]) -> list[Path]:
    with records.atomic(folder / "log.csv") as file:
        columns = ["step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_gib"]
        columns += sorted({key for line in lines for key in line} - set(columns))
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)
    plots.training_curves(lines, folder / "loss.png", folder / "report.html")
    return [folder / name for name in ("log.csv", "loss.png", "report.html")]


def say(text: str) -> None:
    """A line on stderr, from the first process only."""
    if processes.first():
        print(text, file=sys.stderr, flush=True)
