"""CPU time of a training loop on transformers' Trainer, measured the same way in every environment; imports nothing of Xinglin.

In: a job, JSON: {"model", "rows", "folder", "rank", "alpha", "learning_rate", "epochs", "micro", "accumulate", "skip", "warmup"};
rows is a file of {"messages", "input_ids", "labels"}. Out: ``folder/meter.json``::

    {"supervised": 20877, "positions": 33120, "cpu": 9.41, "wall": 9.6, "growth": 310.2, "steps": 11}

Time and tokens are those between the beginning of optimizer step ``skip`` and the beginning of the last one, so that start and
end are left out and every counted step is whole: batches, forward, backward and optimizer.
"""

import json
import resource
import time
from pathlib import Path
from typing import Any


def read(job: str) -> dict[str, Any]:
    return json.loads(Path(job).read_text(encoding="utf-8"))


class Meter:
    def __init__(self, job: dict[str, Any]) -> None:
        self.accumulate, self.skip = job["accumulate"], job["skip"]
        self.folder = Path(job["folder"])
        self.marks: list[tuple[float, float, int, int]] = []  # at every optimizer step: cpu, wall, tokens so far
        self.micro = self.supervised = self.positions = 0
        self.before = 0.0

    def attach(self, trainer: type) -> None:
        """Wrap ``training_step`` of transformers' Trainer, from which every peer's trainer inherits it."""
        original, meter = trainer.training_step, self

        def training_step(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            meter.enter(inputs)
            return original(self, model, inputs, *rest, **named)

        trainer.training_step = training_step

    def enter(self, inputs: Any) -> None:
        if self.micro % self.accumulate == 0:
            if not self.marks:
                self.before = _peak()
            self.marks.append((time.process_time(), time.monotonic(), self.supervised, self.positions))
        self.micro += 1
        self.supervised += int((inputs["labels"][:, 1:] != -100).sum())
        self.positions += inputs["input_ids"].numel()

    def save(self) -> None:
        first, last = self.marks[self.skip], self.marks[-1]
        names = ("cpu", "wall", "supervised", "positions")
        found: dict[str, Any] = {name: round(b - a, 3) for name, a, b in zip(names, first, last, strict=True)}
        found |= {"growth": round(_peak() - self.before, 1), "steps": len(self.marks) - 1 - self.skip}
        (self.folder / "meter.json").write_text(json.dumps(found), encoding="utf-8")


def _peak() -> float:
    """Highest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
