"""Clean: corpora of any shape in, rows one can train on out.

In: the files of the recipe. Out, below ``runs/<name>/1-clean``: ``records.jsonl`` (one Record per line), ``rejected.jsonl`` (every
row that was not taken over, with its reason), ``report.json`` and ``report.html``. One rejected row::

    {"source": {"file": "my.csv", "row": 17}, "reason": "advertisement", "raw": "……七天一疗程，无效退款"}
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from xinglin import records
from xinglin.config import Recipe
from xinglin.data import duplicates, filters
from xinglin.data.normalise import TURN, normalise
from xinglin.records import Record, Rejected
from xinglin.safety import pii

FOLDER = "1-clean"
SETTINGS = ("clean",)


def inputs(recipe: Recipe) -> list[Path]:
    if not recipe.data:
        raise ValueError("data is empty: name the corpus files in the recipe, such as data: [my.csv], or data: [demo]")
    for path in recipe.files:
        if not path.is_file():
            raise ValueError(f"data: {path} is not a file; name corpus files, or demo for the built-in sample")
    return recipe.files


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    rejected: list[Rejected] = []
    rows: list[Record] = []
    for path in recipe.files:
        for row in records.read(path, recipe.clean.columns):
            if isinstance(row, Record):
                rows.append(row)
            else:
                rejected.append(row)
    table = _table(rows, recipe)
    rejected += [Rejected(rows[place].source, reason, answer[:200]) for place, reason, answer in _rejects(table)]
    table = table.filter(pl.col("reason").is_null())
    kept, dropped = _deduplicate(table, rows)
    rejected += dropped
    outputs = [folder / "records.jsonl", folder / "rejected.jsonl", folder / "report.json"]
    records.write_jsonl(outputs[0], kept)
    records.write_jsonl(outputs[1], rejected)
    reasons = Counter(row.reason.split(":")[0] for row in rejected)
    records.write_json(outputs[2], {"kept": len(kept), "rejected": dict(reasons)})
    return outputs, {"rows": len(kept) + len(rejected), "kept": len(kept), **reasons}


def _table(rows: list[Record], recipe: Recipe) -> pl.DataFrame:
    texts = [TURN.join(turn["content"].replace(TURN, "") for turn in row.messages) for row in rows]
    table = pl.DataFrame({"place": range(len(rows)), "text": texts}, schema={"place": pl.Int64, "text": pl.String})
    turns = pl.col("text").str.split(TURN)
    table = table.with_columns(normalise(pl.col("text"))).with_columns(question=turns.list.get(-2), answer=turns.list.get(-1))
    table = table.with_columns(reason=filters.reasons(recipe.clean.min_chars, recipe.clean.max_chars))
    masked = [pii.mask(text) for text in table["text"]]
    return table.with_columns(
        text=pl.Series([m.text for m in masked], dtype=pl.String), marks=pl.Series([len(m.spans) for m in masked], dtype=pl.Int64)
    )


def _rejects(table: pl.DataFrame) -> Iterator[tuple[int, str, str]]:
    yield from table.filter(pl.col("reason").is_not_null()).select("place", "reason", "answer").iter_rows()


def _deduplicate(table: pl.DataFrame, rows: list[Record]) -> tuple[list[Record], list[Rejected]]:
    texts, marks, places = table["text"].to_list(), table["marks"].to_list(), table["place"].to_list()
    roots = duplicates.components(texts, 0.8).roots().tolist()
    groups = duplicates.components([text.split(TURN)[-2] for text in texts], 0.8).roots().tolist()
    best: dict[int, int] = {}
    for index, root in enumerate(roots):
        if root not in best or (marks[index], index) < (marks[best[root]], best[root]):
            best[root] = index
    kept, rejected = [], []
    for index, root in enumerate(roots):
        source = rows[places[index]].source
        if best[root] != index:
            rejected.append(Rejected(source, f"near_duplicate: of {rows[places[best[root]]].source}", texts[index][:200]))
            continue
        turns = [
            {"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts[index].split(TURN))
        ]
        group = _digest(texts[groups[index]].split(TURN)[-2])
        kept.append(Record(_digest(texts[index]), group, turns, source, rows[places[index]].meta))
    return kept, rejected


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
