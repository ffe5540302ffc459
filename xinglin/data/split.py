"""Split: the rows divided into train, validation and test, nothing that is alike in two of them.

In: ``2-rewrite/records.jsonl`` where there is a rewrite of these rows, else ``1-clean/records.jsonl``. Out, below ``3-split``:
``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` (only with a test share) and ``leak.json``::

    {"rows": {"train": 120, "validation": 14}, "groups_crossing": 0, "duplicates_crossing": 0,
     "highest_similarity": {"row": {"similarity": 0.31, "pair": ["demo:12", "demo:40"]}, "question": {…}}}

A part of share s gets ceil(s x rows) rows (134 rows at 0.1: 14), whole groups, in the order of their hash under the seed. So
adding rows moves no group but the few at the border of a part.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xinglin import records
from xinglin.config import Recipe
from xinglin.data import duplicates
from xinglin.data.duplicates import Components

FOLDER = "3-split"
SETTINGS = ("seed", "split")
ALIKE = 0.8  # Jaccard similarity of character 5-grams, of whole rows or of questions
EXACT = 100_000  # pairs; up to here all pairs across parts are compared, above it those that share a band
BANDS = 32  # finds a pair at similarity 0.8 with probability 0.9999999, at 0.5 with 0.87


class Row(NamedTuple):
    """What decides where a row goes."""

    group: str
    department: str
    question: str
    text: str
    source: str


class Pair(NamedTuple):
    """Two rows by their numbers, and how alike they are, from 0 to 1."""

    first: int
    second: int
    similarity: float


def inputs(recipe: Recipe) -> list[Path]:
    clean, rewrite = (recipe.folder / stage for stage in ("1-clean", "2-rewrite"))
    if not (clean / "manifest.json").exists():
        raise ValueError(f"{recipe.folder}: nothing to split; run `xinglin clean` on this recipe first")
    if (rewrite / "manifest.json").exists():
        if not records.made_from(rewrite, clean / "records.jsonl"):
            raise ValueError(f"{rewrite} is older than {clean}: run `xinglin rewrite`, or delete it to split the cleaned rows")
        return [rewrite / "records.jsonl"]
    if (rewrite / "journal.sqlite").exists():
        raise ValueError(f"{rewrite} is not finished: run `xinglin rewrite`, or delete it to split the cleaned rows")
    return [clean / "records.jsonl"]


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    path = inputs(recipe)[0]
    rows = [_row(record) for record in records.iterate(path)]
    shares = {"validation": recipe.split.validation, "test": recipe.split.test}
    alike = {"row": _alike([row.text for row in rows]), "question": _alike([row.question for row in rows])}
    groups = _groups(rows, alike)
    if recipe.split.balance and not any(row.department for row in rows):
        raise ValueError(f"{path}: no row has a department; set split.balance=false, or name their column in clean.columns")
    parts = divide(groups, [row.department if recipe.split.balance else "" for row in rows], shares, recipe.seed)
    _refuse_empty(parts, shares, path)
    leak = check(rows, parts, alike)
    names = ["train", *(name for name, share in shares.items() if share)]
    outputs = [folder / f"{name}.jsonl" for name in names]
    for name, output in zip(names, outputs, strict=True):
        records.write_jsonl(output, (record for record, part in zip(records.iterate(path), parts, strict=True) if part == name))
    if "test" not in names:
        (folder / "test.jsonl").unlink(missing_ok=True)
    records.write_json(folder / "leak.json", leak)
    highest = max(pair["similarity"] for pair in leak["highest_similarity"].values())
    facts = {"from": path.parent.name, **leak["rows"], "groups": len(set(groups)), "highest_similarity": highest}
    return [*outputs, folder / "leak.json"], facts


def _row(record: records.Record) -> Row:
    text = "\n".join(turn["content"] for turn in record.messages)
    source = f"{record.source.get('file', '')}:{record.source.get('row', '')}"
    return Row(record.group, str(record.meta.get("department", "")), record.question, text, source)


# ---------------------------------------------------------------- what belongs together


def _alike(texts: Sequence[str]) -> list[Pair]:
    """Pairs of texts that may be alike, with their exact similarity; each pair once."""
    rows, columns = np.arange(len(texts)), duplicates.band_hashes(texts, BANDS).T
    found = [pairs for column in columns for pairs in duplicates.candidates(column, rows)]
    keys = np.unique(np.concatenate([pairs[:, 0] * len(texts) + pairs[:, 1] for pairs in found]))
    grams = duplicates.remembered(texts.__getitem__)
    pairs = (divmod(key, len(texts)) for key in keys.tolist())
    return [Pair(first, second, duplicates.overlap(grams(first), grams(second))) for first, second in pairs]


def _groups(rows: Sequence[Row], alike: Mapping[str, Sequence[Pair]]) -> list[str]:
    """The group of every row; groups that hold rows or questions alike are one, named after the earliest."""
    joined = Components(len(rows))
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        joined.join(first.setdefault(row.group, number), number)
    for pair in (pair for pairs in alike.values() for pair in pairs if pair.similarity >= ALIKE):
        joined.join(pair.first, pair.second)
    return [rows[root].group for root in joined.roots().tolist()]


# ---------------------------------------------------------------- who goes where


def divide(groups: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """The part of every row: whole groups, in the order of their hash, until a part has its share of every stratum.

    The stratum of a group is that of its first row; all rows in one stratum: no balance.
    """
    members: defaultdict[str, dict[str, int]] = defaultdict(dict)
    home: dict[str, str] = {}
    for group, stratum in zip(groups, strata, strict=True):
        own = members[home.setdefault(group, stratum)]
        own[group] = own.get(group, 0) + 1
    part: dict[str, str] = {}
    for name, share in shares.items():
        rooms = _rooms({stratum: sum(sizes.values()) for stratum, sizes in members.items()}, share)
        for stratum, sizes in members.items():
            part |= _fill(name, sizes, rooms[stratum], part, seed)
    return [part.get(group, "train") for group in groups]


def _rooms(rows: Mapping[str, int], share: float) -> dict[str, int]:
    """Rows to hold out of every stratum: its share rounded down, and what is missing to the whole to the largest rests."""
    exact = {stratum: share * count for stratum, count in rows.items()}
    rooms = {stratum: math.floor(round(room, 6)) for stratum, room in exact.items()}
    missing = math.ceil(round(share * sum(rows.values()), 6)) - sum(rooms.values())
    for stratum in sorted(exact, key=lambda stratum: (rooms[stratum] - exact[stratum], stratum))[:missing]:
        rooms[stratum] += 1
    return rooms


def _fill(name: str, sizes: Mapping[str, int], room: int, taken: Mapping[str, str], seed: int) -> dict[str, str]:
    chosen = {}
    for group in sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()):
        if group not in taken and sizes[group] <= room:
            chosen[group] = name
            room -= sizes[group]
    return chosen


def _refuse_empty(parts: Sequence[str], shares: Mapping[str, float], path: Path) -> None:
    counts = Counter(parts)
    for name in ("train", *(name for name, share in shares.items() if share)):
        if not counts[name]:
            raise ValueError(
                f"{path}: {len(parts)} rows leave none for {name}; add rows, or change split.validation and split.test"
            )


# ---------------------------------------------------------------- the check


def check(rows: Sequence[Row], parts: Sequence[str], alike: Mapping[str, Sequence[Pair]]) -> dict[str, Any]:
    """What is alike across parts. Raises ``ValueError`` where a group or a near-duplicate crosses, before anything is written."""
    crossing = [group for group, found in _parts_of(rows, parts) if len(found) > 1]
    across = {name: [pair for pair in pairs if parts[pair.first] != parts[pair.second]] for name, pairs in alike.items()}
    copies = [pair for pairs in across.values() for pair in pairs if pair.similarity >= ALIKE]
    if crossing:
        raise ValueError(f"split: group {crossing[0]} would stand in two parts; nothing was written")
    if copies:
        first, second = (rows[number].source for number in copies[0][:2])
        raise ValueError(f"split: {first} and {second} are alike ({copies[0].similarity:.2f}) in two parts; nothing was written")
    texts = {"row": [row.text for row in rows], "question": [row.question for row in rows]}
    highest = {name: _highest(rows, _all_across(texts[name], parts) or pairs) for name, pairs in across.items()}
    counts = Counter(parts)
    return {
        "rows": {name: counts[name] for name in ("train", "validation", "test")},
        "groups_crossing": 0,
        "duplicates_crossing": 0,
        "threshold": ALIKE,
        "highest_similarity": highest,
    }


def _all_across(texts: Sequence[str], parts: Sequence[str]) -> list[Pair]:
    """Every pair across parts where they are few; empty where they are many, and candidates must do."""
    held = [number for number, part in enumerate(parts) if part != "train"]
    if len(held) * len(parts) > EXACT:
        return []
    sets = [duplicates.grams(text) for text in texts]
    pairs = ((first, second) for first in held for second in range(len(parts)) if parts[first] != parts[second])
    return [Pair(first, second, duplicates.overlap(sets[first], sets[second])) for first, second in pairs]


def _parts_of(rows: Sequence[Row], parts: Sequence[str]) -> Iterator[tuple[str, set[str]]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row, part in zip(rows, parts, strict=True):
        found[row.group].add(part)
    yield from found.items()


def _highest(rows: Sequence[Row], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The most alike of ``pairs``; 0 where there is none."""
    best = max(pairs, key=lambda pair: pair.similarity, default=None)
    if best is None:
        return {"similarity": 0.0, "pair": []}
    return {"similarity": round(best.similarity, 3), "pair": [rows[best.first].source, rows[best.second].source]}
