"""Lineage: what became of one line of a corpus, and of the row it was turned into.

In: a recipe whose stages have run, and ``FILE:LINE``. Out: one line per stage, for people::

    clean    my.csv:17 kept as 3f2a… (group 9c1b…); 2 copies of it were removed: my.csv:40, other.json:3
    rewrite  kept
    split    train, line 12

The way back needs no search: every row of every stage carries ``source: {"file", "row"}``.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from xinglin.config import Recipe
from xinglin.data import hub
from xinglin.records import Record, Rejected, iterate


def trace(recipe: Recipe, place: str) -> str:
    """The fate of ``FILE:LINE``. Raises ``ValueError`` where the stage has not run or no such row was read."""
    file, _, line = place.rpartition(":")
    if not file or not line.isdigit():
        raise ValueError(f"--trace {place}: write FILE:LINE, such as my.csv:17")
    folder = recipe.folder / "1-clean"
    if not (folder / "manifest.json").exists():
        raise ValueError(f"{folder}: not finished; run `xinglin clean` on this recipe first")
    names = {name for name, path in hub.sources(recipe).items() if file in {name, path.name, str(path)}}
    for rejected in _rejected(folder / "rejected.jsonl"):
        if rejected.source["file"] in names and rejected.source["row"] == int(line):
            return f"clean    {place} rejected: {rejected.reason}\n         {rejected.raw!r}"
    for record in iterate(folder / "records.jsonl"):
        if record.source["file"] in names and record.source["row"] == int(line):
            return "\n".join((_kept(folder, record), *_later(recipe, record.id)))
    raise ValueError(f"--trace {place}: no row was read there; files are {', '.join(recipe.data)}")


def _kept(folder: Path, record: Record) -> str:
    place = f"{record.source['file']}:{record.source['row']}"
    copies = [
        f"{rejected.source['file']}:{rejected.source['row']}"
        for rejected in _rejected(folder / "rejected.jsonl")
        if "_duplicate: of " in rejected.reason and f"{rejected.reason} ".split(": of ", 1)[1].startswith(f"{place} ")
    ]
    removed = f"; {len(copies)} copies of it were removed: {', '.join(copies[:10])}" if copies else ""
    return f"clean    {place} kept as {record.id} (group {record.group}){removed}"


def _later(recipe: Recipe, id: str) -> Iterator[str]:
    """Where the record stands in the stages after this one, if they have run."""
    for name, folder in (("rewrite", recipe.folder / "2-rewrite"), ("split", recipe.folder / "3-split")):
        for path in sorted(folder.glob("*.jsonl")) if (folder / "manifest.json").exists() else ():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if json.loads(line).get("id") == id:
                    yield f"{name:8} {path.stem}, line {number}"


def _rejected(path: Path) -> Iterator[Rejected]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield Rejected(**json.loads(line))
