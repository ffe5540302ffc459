"""Claim: triage finds emergencies and leaves other questions alone, in under 5 ms, and no rewording lowers a level.

Run: ``python bench/triage.py``. Prints the table and writes ``bench/results/triage.json``. Every set is split by a hash of
its text: the development half may be looked at and tuned on, the held-out half is only ever counted.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xinglin.safety.triage import Alert

SETS = Path(__file__).resolve().parent.parent / "tests" / "safety" / "sets"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def turns_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row["turns"]) if "turns" in row else (row["text"],)


def is_held_out(turns: Sequence[str]) -> bool:
    return hashlib.sha256("\n".join(turns).encode()).digest()[0] % 2 == 1


def development(name: str) -> list[tuple[str, ...]]:
    return [turns for row in read(name) if not is_held_out(turns := turns_of(row))]


def is_alarm(alert: Alert | None) -> bool:
    """Whether the alert opens the red panel: level A or B."""
    return alert is not None and alert.level in "AB"
