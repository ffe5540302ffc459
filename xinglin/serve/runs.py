"""The training runs below the folder of the runs, as the page ``/runs`` shows them while they go on.

In: ``runs/<name>/4-train/log.jsonl``, which grows. Out: one summary per run, and the lines of one of them::

    {"name": "demo", "step": 90, "epoch": 3.0, "loss": 1.42, "eval_loss": 1.51, "changed": 1795320099, "finished": true}
"""

import json
import re
from pathlib import Path
from typing import Any

STAGE = "4-train"


def found(runs: Path) -> list[dict[str, Any]]:
    """All runs with a log, the one that changed last first."""
    logs = [path for path in runs.glob(f"*/{STAGE}/log.jsonl") if path.is_file()]
    return sorted((_summary(path) for path in logs), key=lambda run: -run["changed"])


def _summary(path: Path) -> dict[str, Any]:
    latest: dict[str, Any] = {}
    for line in _lines(path):
        latest |= line
    folder = path.parent
    values = {key: latest.get(key) for key in ("step", "epoch", "loss", "eval_loss")}
    state = {"changed": int(path.stat().st_mtime), "finished": (folder / "manifest.json").is_file()}
    return {"name": folder.parent.name} | values | state


def log(runs: Path, name: str, after: int) -> list[dict[str, Any]]:
    """The log lines of a run from number ``after`` on. Raises ``ValueError`` where there is no such run."""
    path = runs / name / STAGE / "log.jsonl"
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name) or not path.is_file():
        raise ValueError(f"run {name!r} has no log")
    return _lines(path)[max(0, after) :]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last one may be half written."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]
