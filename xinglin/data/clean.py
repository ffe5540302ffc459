"""Clean: corpora of any shape in, rows one can train on out.

In: the files of the recipe. Out, below ``runs/<name>/1-clean``: ``records.jsonl`` (one Record per line), ``rejected.jsonl``
(every row not taken over, with its reason), ``report.json`` and ``report.html``. One rejected row::

    {"source": {"file": "my.csv", "row": 17}, "reason": "advertisement", "raw": "……七天一疗程，无效退款"}

Rows go through in batches, and what is done with a batch is kept on disk: a killed run goes on behind the last one.
"""

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from xinglin import reading, records
from xinglin.config import Recipe
from xinglin.data import clusters, hub, report
from xinglin.data.batches import Options, frame, prepare
from xinglin.data.benchmarks import Benchmarks
from xinglin.data.normalise import TURN
from xinglin.data.progress import Progress
from xinglin.records import Record, Rejected

FOLDER = "1-clean"
SETTINGS = ("clean", "data")
BATCH = 50_000  # rows; what a killed run does again at most


class Part(NamedTuple):
    """One prepared batch of a file: its good rows, its rejected rows, and the sketches of the good ones."""

    source: str  # the file as the recipe names it
    good: Path
    bad: Path
    sketch: Path


def inputs(recipe: Recipe) -> list[Path]:
    if not recipe.data:
        raise ValueError("data is empty: name the corpus files in the recipe, such as data: [my.csv], or data: [demo]")
    files = [*hub.sources(recipe).values(), *recipe.clean.decontaminate]
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; data and clean.decontaminate name files, hub data sets or demo")
    return files


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    sources = hub.sources(recipe)
    work = _work(recipe, folder, sources)
    kinds = {name: reading.detect(path) for name, path in sources.items()}
    parts = _prepare_all(recipe, sources, kinds, work)
    _refuse_unreadable(parts)
    for part in parts:
        if not part.sketch.exists():
            clusters.write_sketch(part.sketch, pl.read_ipc(part.good)["text"].to_list())
    fates = clusters.find([part.sketch for part in parts], [part.good for part in parts], recipe.clean.near_duplicate)
    tally = report.Tally(kinds, recipe.train.max_length)
    outputs = [folder / name for name in ("records.jsonl", "rejected.jsonl", "report.json", "report.html")]
    with records.atomic(outputs[0]) as kept, records.atomic(outputs[1]) as rejected:
        for row in _outcomes(parts, fates, tally):
            (kept if isinstance(row, Record) else rejected).write(records.to_json(row) + "\n")
    records.write_json(outputs[2], tally.facts())
    records.write_text(outputs[3], report.page(tally, recipe.name))
    shutil.rmtree(work)
    return outputs, tally.counts()


def _work(recipe: Recipe, folder: Path, sources: dict[str, Path]) -> Path:
    """Folder of the prepared batches of exactly these files, settings and code; those of others are removed."""
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in (*sources.values(), *recipe.clean.decontaminate)
    ]
    state = json.dumps([files, recipe.clean.model_dump(mode="json", exclude={"engine"}), records.code_version(), BATCH])
    work = folder / f"work-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    for other in folder.glob("work-*"):
        if other != work:
            shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    return work


def _prepare_all(recipe: Recipe, sources: dict[str, Path], kinds: dict[str, reading.Kind], work: Path) -> list[Part]:
    options = Options(recipe.clean, Benchmarks(recipe.clean.decontaminate))
    parts: list[Part] = []
    total = sum(path.stat().st_size for path in sources.values())
    with Progress("clean", total) as progress:
        before = 0
        for number, (name, path) in enumerate(sources.items()):
            rows = 0
            for part, count, position in _prepare(name, path, kinds[name], options, work / f"{number:03}", recipe):
                rows += count
                parts.append(part)
                progress.update(before + position, rows)
            before += path.stat().st_size
    return parts


def _prepare(
    name: str, path: Path, kind: reading.Kind, options: Options, stem: Path, recipe: Recipe
) -> Iterator[tuple[Part, int, int]]:
    """The parts of one file, with the rows and the bytes read for each; parts that are there are not made again."""
    position = reading.Position()
    rows = reading.dialogues(path, recipe.clean.columns, kind, position)
    number = 0
    while batch := list(islice(rows, BATCH)):
        part = Part(name, *(stem.parent / f"{stem.name}-{number:05}.{kind}" for kind in ("good", "bad", "npy")))
        if not part.bad.exists():
            prepared = prepare(frame(batch), options)
            reason = pl.col("reason")
            _write(prepared.filter(reason.is_null()).drop("reason"), part.good)
            _write(prepared.filter(reason.is_not_null()), part.bad)
        yield part, len(batch), position.bytes
        number += 1


def _write(rows: pl.DataFrame, path: Path) -> None:
    """Whole or not at all; the rejected rows of a part are written last, and stand for all of it."""
    temporary = path.with_suffix(".part")
    rows.write_ipc(temporary)
    temporary.replace(path)


def _refuse_unreadable(parts: Sequence[Part]) -> None:
    """Stop where not one row of a file could be read: that is a wrong file or a missing column, not dirt."""
    for name in dict.fromkeys(part.source for part in parts):
        own = [part for part in parts if part.source == name]
        reasons = pl.concat([pl.read_ipc(part.bad)["reason"] for part in own])
        readable = any(pl.read_ipc(part.good).height for part in own)
        if not readable and reasons.str.starts_with("unreadable").all():
            raise ValueError(f"{name}: no row could be read; the first is {reasons[0]}")


def _outcomes(parts: Sequence[Part], fates: clusters.Fates, tally: report.Tally) -> Iterator[Record | Rejected]:
    """Every row of every part, in the order of the files, as a record or with the reason why not."""
    places = clusters.Places([part.good for part in parts], [part.source for part in parts])
    first = 0
    for part in parts:
        good, bad = pl.read_ipc(part.good), pl.read_ipc(part.bad)
        kept = ((row["row"], number, row) for number, row in enumerate(good.iter_rows(named=True), first))
        lost = ((row["row"], None, row) for row in bad.iter_rows(named=True))
        for _, number, row in heapq.merge(kept, lost, key=lambda found: found[0]):
            outcome = _outcome(part.source, number, row, fates, places)
            tally.add(outcome, row["kinds"])
            yield outcome
        first += good.height


def _outcome(
    source: str, number: int | None, row: dict[str, Any], fates: clusters.Fates, places: clusters.Places
) -> Record | Rejected:
    """``number`` counts the good rows of all parts; None for a row that was rejected by itself."""
    origin = {"file": source, "row": row["row"]}
    if number is not None and fates.best[number] == number:
        return records.record(row["text"].split(TURN), origin, row["department"], row["id"], fates.group(number))
    if number is None:
        reason = row["reason"]
    else:
        best = int(fates.best[number])
        reason = clusters.duplicate_reason(row["text"], places.text(best), places.source(best))
    return Rejected(origin, reason, row["text"][:200].replace(TURN, "\n"))
