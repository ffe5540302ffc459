"""Lineage: what became of one line of a corpus, and of the row it was turned into.

In: a recipe whose stages have run, and ``FILE:LINE``. Out: one line per stage, for people::

    clean    my.csv:17 kept as 3f2a… (group 9c1b…); 2 copies of it were removed: my.csv:40, other.json:3
    rewrite  kept (accepted)
    split    train, line 12

The way back needs no search: every row of every stage carries ``source: {"file", "row"}``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from xinglin import reading
from xinglin.config import Recipe
from xinglin.data import hub
from xinglin.records import Record, Rejected, iterate, made_from


def trace(recipe: Recipe, place: str) -> str:
    """The fate of ``FILE:LINE``. Raises ``ValueError`` where the stage has not run or no such row was read."""
    file, _, line = place.rpartition(":")
    if not file or not line.isdigit():
        raise ValueError(f"--trace {place}: write FILE:LINE, such as my.csv:17")
    folder = recipe.folder / "1-clean"
    if not (folder / "manifest.json").exists():
        raise ValueError(f"{folder}: not finished; run `xinglin clean` on this recipe first")
    sources = {name: path for name, path in hub.sources(recipe).items() if file in {name, path.name} or _same(file, path)}
    rows = {name: reading.row_at(path, int(line)) for name, path in sources.items()}
    fate = _fate(recipe, folder, rows)
    if fate is None:
        raise ValueError(f"--trace {place}: no row was read there; files are {', '.join(recipe.data)}")
    inside = [row for row in rows.values() if row != int(line)]
    return "\n".join((*(f"line {line} is part of the row at {row}" for row in inside), *fate))


def _same(file: str, path: Path) -> bool:
    return Path(file).expanduser().resolve() == path.resolve()


def _fate(recipe: Recipe, folder: Path, rows: Mapping[str, int]) -> list[str] | None:
    """What became of the first of ``rows``, numbers by file, that was read."""
    for rejected in _rejected(folder / "rejected.jsonl"):
        if rows.get(rejected.source["file"]) == rejected.source["row"]:
            return [f"clean    {_place(rejected)} rejected: {rejected.reason}", f"         {rejected.raw!r}"]
    for record in iterate(folder / "records.jsonl"):
        if rows.get(record.source["file"]) == record.source["row"]:
            return [_kept(folder, record), *_later(recipe, record)]
    return None


def _place(row: Record | Rejected) -> str:
    return f"{row.source['file']}:{row.source['row']}"


def _kept(folder: Path, record: Record) -> str:
    place = _place(record)
    copies = [
        _place(rejected)
        for rejected in _rejected(folder / "rejected.jsonl")
        if "_duplicate: of " in rejected.reason and f"{rejected.reason} ".split(": of ", 1)[1].startswith(f"{place} ")
    ]
    removed = f"; {len(copies)} copies of it were removed: {', '.join(copies[:10])}" if copies else ""
    return f"clean    {place} kept as {record.id} (group {record.group}){removed}"


def _later(recipe: Recipe, record: Record) -> Iterator[str]:
    """Where the record stands in the stages after this one, as far as they have run on these rows."""
    source, rewrite, split = (recipe.folder / name for name in ("1-clean", "2-rewrite", "3-split"))
    if (rewrite / "manifest.json").exists():
        if not made_from(rewrite, source / "records.jsonl"):
            yield "rewrite  older than clean: run `xinglin rewrite`"
            return
        source = rewrite
        yield from (
            f"rewrite  kept ({found.meta['rewrite']})" for found in iterate(rewrite / "records.jsonl") if found.id == record.id
        )
        lost = (rejected for rejected in _rejected(rewrite / "rejected.jsonl") if rejected.source == record.source)
        yield from (f"rewrite  rejected: {rejected.reason}" for rejected in lost)
    if (split / "manifest.json").exists():
        if not made_from(split, source / "records.jsonl"):
            yield f"split    older than {source.name}: run `xinglin split`"
            return
        for path in sorted(split.glob("*.jsonl")):
            yield from (
                f"split    {path.stem}, line {line}" for line, found in enumerate(iterate(path), 1) if found.id == record.id
            )


def _rejected(path: Path) -> Iterator[Rejected]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield Rejected(**json.loads(line))
