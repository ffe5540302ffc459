"""Distributed: the steps of cleaning as Ray Data tasks, on the cluster at RAY_ADDRESS or a local one.

In: jobs. Out: the same files in the work folder as from one process, byte for byte. Only names of files and numbers travel to the
driver, never texts: a task reads its rows from the corpus or the work folder and writes its part back, so every node must see the
folder of the run (NFS, or any shared file system).

Copies are found in rounds: one task for each band of the sketches lists candidate pairs; the pairs, sorted by where their rows
lie, are verified against the texts in chunks; the driver joins what was verified; tasks choose the best row of each cluster.
"""

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xinglin import reading, records
from xinglin.data import clusters, parts
from xinglin.data.batches import Options
from xinglin.data.duplicates import BANDS, Components, Positions, candidates, grams, overlap
from xinglin.data.parts import Job, Part
from xinglin.data.progress import Progress

CHUNK = 100_000  # pairs or clusters of one task


class Cluster(NamedTuple):
    ray: Any
    cores: int

    def each(self, task: str, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """``function`` of every item, one task for each, in the order of the items; results are what JSON can hold."""
        given = list(items)
        if not given:
            return

        def call(row: dict[str, Any]) -> dict[str, Any]:
            number = int(row["id"])
            return {"number": number, "result": json.dumps(function(given[number]))}

        tasks = self.ray.data.range(len(given), override_num_blocks=len(given)).map(call)
        found: dict[int, str] = {}
        with Progress(f"clean: {task}", len(given), "tasks") as progress:
            for row in tasks.iter_rows():
                found[row["number"]] = row["result"]
                progress.update(len(found), len(found))
        yield from (json.loads(found[number]) for number in range(len(given)))


def connect() -> Cluster:
    """The cluster at RAY_ADDRESS, or one of this machine's cores."""
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ModuleNotFoundError:
        raise ValueError("clean.engine=ray needs the package ray: pip install 'xinglin[ray]', or clean.engine=local") from None
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS", "local"), logging_level="warning", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.preserve_order = True
    return Cluster(ray, max(1, int(ray.cluster_resources().get("CPU", 1))))


def shares(jobs: Sequence[Job], cores: int) -> list[Job]:
    """One task a file; where files are fewer than cores, several that each prepare every n-th batch (and read the whole file)."""
    each = -(-cores // len(jobs))
    return [job._replace(first=first, of=each) for job in jobs for first in range(each)]


def prepare(job: Job, options: Options, work: Path) -> list[tuple[str, str]]:
    """Source and stem of every part of a job."""
    return [
        (part.source, str(part.stem)) for part, _ in parts.prepare_job(job, options, work, reading.Position(), lambda _: None)
    ]


def find(cluster: Cluster, found: Sequence[Part], work: Path, threshold: float) -> clusters.Fates:
    """``clusters.find``, its candidates listed and verified by tasks."""
    places = clusters.Places([part.file("good") for part in found])
    sketches = [part.file("npy") for part in found]
    rows = _joined(cluster, sketches, places, work, 0, threshold)
    questions = _joined(cluster, sketches, places, work, 1 + BANDS, threshold)
    return clusters.Fates(_chosen(cluster, rows.roots(), places, work), questions.roots(), places)


def _chosen(cluster: Cluster, roots: Positions, places: clusters.Places, work: Path) -> Positions:
    """``clusters.choose``, the rows of the clusters read by tasks."""
    _save(work / "roots.npy", roots)
    copied = clusters.copies(roots)
    starts = range(0, len(copied), CHUNK)
    best = np.arange(len(roots))
    for start, chosen in zip(starts, cluster.each("choosing", partial(_best, places.paths, work), starts), strict=True):
        for members, number in zip(copied[start : start + CHUNK], chosen, strict=True):
            best[members] = number
    return best


def _best(good: Sequence[Path], work: Path, start: int) -> list[int]:
    """The row that stands for each cluster of a chunk."""
    places = clusters.Places(good)
    return [clusters.best_of(members, places) for members in clusters.copies(np.load(work / "roots.npy"))[start : start + CHUNK]]


def _joined(
    cluster: Cluster, sketches: Sequence[Path], places: clusters.Places, work: Path, first: int, threshold: float
) -> Components:
    joined, single = clusters.join_exact(clusters.column(sketches, first))
    if threshold == 1:
        return joined
    _save(work / "single.npy", single)
    files = list(cluster.each("pairing", lambda band: _candidates(sketches, work, first + 1 + band), range(BANDS)))
    keys = np.unique(np.concatenate([np.load(file) for file in files]))
    _save(work / "keys.npy", keys)
    chunks = range(0, len(keys), CHUNK)
    total = len(joined.parent)
    for verified in cluster.each("verifying", partial(_verified, places.paths, work, first, total, threshold), chunks):
        for key in np.load(verified).tolist():
            joined.join(*divmod(key, total))
    return joined


def _candidates(sketches: Sequence[Path], work: Path, index: int) -> str:
    """Write the pairs of rows that share a hash in one band, as first * total + second; the file's name."""
    column, single = clusters.column(sketches, index), np.load(work / "single.npy")
    pairs = [found[:, 0] * len(column) + found[:, 1] for found in candidates(column[single], single)]
    path = work / f"pairs-{index}.npy"
    _save(path, np.unique(np.concatenate(pairs)))
    return str(path)


def _verified(good: Sequence[Path], work: Path, first: int, total: int, threshold: float, start: int) -> str:
    """Write those of a chunk of pairs whose texts (or questions) are similar by ``threshold``; the file's name."""
    places = clusters.Places(good)
    text = places.question if first else places.text
    keys: Positions = np.load(work / "keys.npy")[start : start + CHUNK]
    pairs = (divmod(key, total) for key in keys.tolist())
    similar = [overlap(grams(text(one)), grams(text(other))) >= threshold for one, other in pairs]
    path = work / f"verified-{first}-{start}.npy"
    _save(path, keys[np.array(similar, bool)])
    return str(path)


def _save(path: Path, numbers: Positions) -> None:
    with records.room(path):
        np.save(path, numbers)
