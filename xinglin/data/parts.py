"""Parts: a corpus in pieces that are prepared and written one by one, by one process or by many.

In: files. Out: for every batch of a file the good rows, the rejected rows and the sketches to find copies by; later, when copies
are known, its lines of ``records.jsonl`` and ``rejected.jsonl`` and its counts. All of it lies in one work folder::

    work-3f2a…/000-00017.good   .text   .index.npy     a batch of the first file, prepared: its good rows, their texts,
               .bad   .npy                             the others, and the sketches, which are written last
    work-3f2a…/best.npy  groups.npy                     for every good row the row that stands for it, and its question group
    work-3f2a…/000-00017.kept   .lost   .json           its outcome

A file that is there is finished, so that a killed run goes on behind it.
"""

import functools
import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from xinglin import reading, records
from xinglin.data import clusters, report
from xinglin.data.batches import Options, frame, prepare
from xinglin.data.normalise import TURN
from xinglin.reading import Kind
from xinglin.records import Record, Rejected
from xinglin.shapes import Dialogue, Unreadable

BATCH = 50_000  # rows; what a killed run does again at most
HEARD = 1000  # rows; after so many read, progress is told


class Job(NamedTuple):
    """A file to prepare, or of its batches the ``first`` and every ``of``-th after it."""

    source: str  # as the recipe names it
    path: Path
    kind: Kind
    number: int
    first: int = 0
    of: int = 1


class Part(NamedTuple):
    """One batch of a file, by the common beginning of the names of its files."""

    source: str
    stem: Path

    def file(self, suffix: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{suffix}")


def prepare_job(
    job: Job, options: Options, work: Path, position: reading.Position, heard: Callable[[int], None]
) -> Iterator[tuple[Part, int]]:
    """The parts of a job, prepared and sketched, with their rows; parts that are there are not made again.

    ``heard`` is told while a file is being read, how many of its rows have been.
    """
    rows = _heard(reading.dialogues(job.path, options.clean.columns, job.kind, position), heard)
    number = 0
    while batch := list(islice(rows, BATCH)):
        if number % job.of == job.first:
            part = Part(job.source, work / f"{job.number:03}-{number:05}")
            _prepare(part, batch, options)
            yield part, len(batch)
        number += 1


def _heard(rows: Iterator[Dialogue | Unreadable], heard: Callable[[int], None]) -> Iterator[Dialogue | Unreadable]:
    count = 0
    for count, row in enumerate(rows, 1):
        yield row
        if count % HEARD == 0:
            heard(count)
    heard(count)


def _prepare(part: Part, batch: Sequence[Dialogue | Unreadable], options: Options) -> None:
    if part.file("npy").exists():
        return
    prepared = prepare(frame(batch), options)
    reason = pl.col("reason")
    good = prepared.filter(reason.is_null()).drop("reason")
    clusters.write_texts(part.file("good"), good)
    _write(good.drop("text"), part.file("good"))
    _write(prepared.filter(reason.is_not_null()), part.file("bad"))
    clusters.write_sketch(part.file("npy"), good["text"].to_list())


def _write(rows: pl.DataFrame, path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    with records.room(path):
        rows.write_ipc(temporary)
    temporary.replace(path)


def refuse_unreadable(parts: Sequence[Part]) -> None:
    """Stop where not one row of a file could be read: that is a wrong file or a missing column, not dirt."""
    for name in dict.fromkeys(part.source for part in parts):
        own = [part for part in parts if part.source == name]
        if any(_height(part.file("good")) for part in own):
            continue
        reasons = pl.concat([pl.read_ipc(part.file("bad"))["reason"] for part in own])
        if reasons.str.starts_with("unreadable").all():
            raise ValueError(f"{name}: no row could be read; the first is {reasons[0]}")


def _height(path: Path) -> int:
    return int(pl.scan_ipc(path).select(pl.len()).collect().item())


# ---------------------------------------------------------------- outcome


def write_fates(work: Path, fates: clusters.Fates) -> None:
    for name, numbers in (("best", fates.best), ("groups", fates.groups)):
        with records.room(work / f"{name}.npy"):
            np.save(work / f"{name}.npy", numbers)


def write_outcome(parts: Sequence[Part], number: int) -> int:
    """Write what becomes of the rows of part ``number``: kept, lost, and the counts, which are written last; how many rows."""
    part = parts[number]
    if part.file("json").exists():
        return _counts(part).read.total()
    places = _places(tuple(parts))
    best, groups = (np.load(part.stem.with_name(f"{name}.npy"), mmap_mode="r") for name in ("best", "groups"))
    tally = report.Tally()
    with records.atomic(part.file("kept")) as kept, records.atomic(part.file("lost")) as lost:
        for row, kinds in _outcomes(part, number, clusters.Fates(best, groups, places)):
            tally.add(row, kinds)
            (kept if isinstance(row, Record) else lost).write(records.to_json(row) + "\n")
    records.write_json(part.file("json"), tally.state())
    return tally.read.total()


def _counts(part: Part) -> report.Tally:
    tally = report.Tally()
    tally.merge(json.loads(part.file("json").read_text(encoding="utf-8")))
    return tally


@functools.lru_cache(1)
def _places(parts: tuple[Part, ...]) -> clusters.Places:
    return clusters.Places([part.file("good") for part in parts], [part.source for part in parts])


def _outcomes(part: Part, number: int, fates: clusters.Fates) -> Iterator[tuple[Record | Rejected, str]]:
    """Every row of part ``number``, in the order of the file, with the kinds of its personal data."""
    texts = zip(_rows(part.file("good")), fates.places.texts(number), strict=True)
    kept = ((row, text, place) for place, (row, text) in enumerate(texts, fates.places.starts[number]))
    lost = ((row, row["text"], None) for row in _rows(part.file("bad")))
    for row, text, place in heapq.merge(kept, lost, key=lambda found: found[0]["row"]):
        yield _outcome(part.source, place, row, text, fates), row["kinds"]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return pl.read_ipc(path).iter_rows(named=True)


def _outcome(source: str, number: int | None, row: dict[str, Any], text: str, fates: clusters.Fates) -> Record | Rejected:
    """``number`` counts the good rows of all parts; None for a row that was rejected by itself."""
    origin = {"file": source, "row": row["row"]}
    if number is None:
        return Rejected(origin, row["reason"], _beginning(text))
    best = int(fates.best[number])
    if best != number:
        reason = clusters.duplicate_reason(text, fates.places.text(best), fates.places.source(best))
        return Rejected(origin, reason, _beginning(text))
    group, marks = fates.group(number, text), {name: row[name] for name in ("rejected", "label")}
    return records.record(text.split(TURN), origin, row["department"], row["id"], group, **marks)


def _beginning(text: str) -> str:
    return text[:200].replace(TURN, "\n")


def tally(parts: Sequence[Part], work: Path) -> report.Tally:
    """The counts of all parts, in order, and of the question groups."""
    total = report.Tally()
    for part in parts:
        total.merge(_counts(part).state())
    best, groups = (np.load(work / f"{name}.npy") for name in ("best", "groups"))
    _, sizes = np.unique(groups[best == np.arange(len(best))], return_counts=True)
    total.groups, total.grouped = len(sizes), int(sizes[sizes > 1].sum())
    return total


def join(parts: Sequence[Part], suffix: str, path: Path) -> None:
    """Write one file of the lines of all parts."""
    with records.atomic(path) as file:
        for part in parts:
            with open(part.file(suffix), encoding="utf-8", newline="") as lines:
                while block := lines.read(2**20):
                    file.write(block)
