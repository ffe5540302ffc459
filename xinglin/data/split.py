"""Split: the rows divided into train, validation and test, no group in two of them.

In: ``2-rewrite/records.jsonl`` where the rewrite stage has finished, else ``1-clean/records.jsonl``. Out, below ``3-split``:
``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` (only with a test share) and ``leak.json``.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.config import Recipe
from xinglin.records import Record

FOLDER = "3-split"
SETTINGS = ("seed", "split")


def inputs(recipe: Recipe) -> list[Path]:
    for stage in ("2-rewrite", "1-clean"):
        if (recipe.folder / stage / "manifest.json").exists():
            return [recipe.folder / stage / "records.jsonl"]
    raise ValueError(f"{recipe.folder}: nothing to split; run `xinglin clean` on this recipe first")


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    rows = records.load(inputs(recipe)[0])
    parts = divide(rows, {"validation": recipe.split.validation, "test": recipe.split.test}, recipe.seed)
    outputs = []
    for name, part in parts.items():
        if part or name != "test":
            outputs.append(folder / f"{name}.jsonl")
            records.write_jsonl(outputs[-1], part)
    records.write_json(folder / "leak.json", {})
    return [*outputs, folder / "leak.json"], {name: len(part) for name, part in parts.items()}


def divide(rows: list[Record], shares: dict[str, float], seed: int) -> dict[str, list[Record]]:
    """Rows by part, in their order. Groups are taken in the order of their hash under the seed until a part is full.

    A part of share s gets ``ceil(s * rows)`` rows, or fewer where the next group would not fit: 134 rows at 0.1 give 14.
    """
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    chosen: dict[str, str] = {}
    for name, share in shares.items():
        room = math.ceil(round(share * len(rows), 6))
        for group in order:
            if group not in chosen and len(groups[group]) <= room:
                chosen[group] = name
                room -= len(groups[group])
    parts: dict[str, list[Record]] = {"train": [], **{name: [] for name in shares}}
    for row in rows:
        parts[chosen.get(row.group, "train")].append(row)
    return parts
