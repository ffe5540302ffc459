"""Clean: corpora of any shape in, rows one can train on out.

In: the files of the recipe. Out, below ``runs/<name>/1-clean``: ``records.jsonl`` (one Record per line), ``rejected.jsonl``
(every row not taken over, with its reason), ``report.json`` and ``report.html``. One rejected row::

    {"source": {"file": "my.csv", "row": 17}, "reason": "advertisement", "raw": "……七天一疗程，无效退款"}

A row goes through reading, normalising, filters, benchmarks and masking by itself, in batches; then copies are found over all.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xinglin import reading, records
from xinglin.config import Recipe
from xinglin.data import clusters, distributed, hub, parts, report
from xinglin.data.batches import Options
from xinglin.data.benchmarks import Benchmarks
from xinglin.data.parts import Job, Part
from xinglin.data.progress import Progress

FOLDER = "1-clean"
SETTINGS = ("clean", "data")


def inputs(recipe: Recipe) -> list[Path]:
    if not recipe.data:
        raise ValueError("data is empty: name the corpus files in the recipe, such as data: [my.csv], or data: [demo]")
    files = [*hub.sources(recipe).values(), *recipe.clean.decontaminate]
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; data and clean.decontaminate name files, hub data sets or demo")
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: the file is empty; give data=[FILE] with rows in it")
    return files


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    sources = hub.sources(recipe)
    kinds = {name: reading.detect(path) for name, path in sources.items()}
    jobs = [Job(name, path, kinds[name], number) for number, (name, path) in enumerate(sources.items())]
    options = Options(recipe.clean, Benchmarks(recipe.clean.decontaminate))
    work = _work(recipe, folder, sources)
    work_through = _on_cluster if recipe.clean.engine == "ray" else _here
    found = work_through(jobs, options, work)
    tally = parts.tally(found, work)
    tally.benchmarks = options.benchmarks.counts
    outputs = [folder / name for name in ("records.jsonl", "rejected.jsonl", "report.json", "report.html")]
    parts.join(found, "kept", outputs[0])
    parts.join(found, "lost", outputs[1])
    records.write_json(outputs[2], tally.facts(kinds, recipe.train.max_length))
    records.write_text(outputs[3], report.page(tally, kinds, recipe.train.max_length, recipe.name))
    shutil.rmtree(work)
    counts = tally.counts()
    if not counts["rows"]:
        raise ValueError(f"{', '.join(sources)}: no row in it; give data=[FILE] with rows in it")
    if not counts["kept"]:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in counts.items() if reason not in {"rows", "kept"})
        raise ValueError(f"{', '.join(sources)}: none of {counts['rows']} rows was kept ({reasons}); {outputs[1]} names each")
    return outputs, counts


def _here(jobs: Sequence[Job], options: Options, work: Path) -> list[Part]:
    """Every step in this process."""
    found = _prepare(jobs, options, work)
    parts.refuse_unreadable(found)
    fates = clusters.find(
        [part.file("npy") for part in found], [part.file("good") for part in found], options.clean.near_duplicate
    )
    parts.write_fates(work, fates)
    with Progress("clean: writing", len(found)) as progress:
        rows = 0
        for number in range(len(found)):
            rows += parts.write_outcome(found, number)
            progress.update(number + 1, rows)
    return found


def _prepare(jobs: Sequence[Job], options: Options, work: Path) -> list[Part]:
    found: list[Part] = []
    rows = before = 0
    with Progress("clean: preparing", sum(job.path.stat().st_size for job in jobs)) as progress:
        for job in jobs:
            position = reading.Position()
            heard = partial(_show_reading, progress, job.path.name)
            for part, count in parts.prepare_job(job, options, work, position, heard):
                found.append(part)
                rows += count
                progress.update(before + position.bytes, rows)
            before += job.path.stat().st_size
    return found


def _show_reading(progress: Progress, name: str, read: int) -> None:
    """What is seen before a batch is prepared, and all that is seen of a corpus smaller than one."""
    progress.update(progress.done, progress.rows, f"{name}: {read:,} rows read")


def _on_cluster(jobs: Sequence[Job], options: Options, work: Path) -> list[Part]:
    """The same functions as Ray tasks; rows pass between them through the work folder, which every node sees."""
    cluster = distributed.connect()
    made = cluster.each("preparing", lambda job: distributed.prepare(job, options, work), distributed.shares(jobs, cluster.cores))
    found = sorted((Part(source, Path(stem)) for part in made for source, stem in part), key=lambda part: part.stem)
    parts.refuse_unreadable(found)
    parts.write_fates(work, distributed.find(cluster, found, work, options.clean.near_duplicate))
    list(cluster.each("writing", lambda number: parts.write_outcome(found, number), range(len(found))))
    return found


def _work(recipe: Recipe, folder: Path, sources: dict[str, Path]) -> Path:
    """Work folder of exactly these files, settings and code; those of others are removed."""
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in (*sources.values(), *recipe.clean.decontaminate)
    ]
    settings = recipe.clean.model_dump(mode="json", exclude={"engine"})
    state = json.dumps([files, settings, records.code_version(), parts.BATCH])
    work = (folder / f"work-{hashlib.sha256(state.encode()).hexdigest()[:12]}").resolve()
    for other in folder.glob("work-*"):
        if other.resolve() != work:
            shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    return work
