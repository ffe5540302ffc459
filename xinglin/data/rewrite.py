"""Rewrite: answers that are not in three sections go through a language model; complete ones pass as they are.

In: ``1-clean/records.jsonl``. Out, in ``2-rewrite/``: ``records.jsonl``, ``meta.rewrite`` saying what happened to each::

    {"id": "b3e1…", "group": "b3e1…", "messages": […], "source": {…}, "meta": {"rewrite": "accepted"}}

and ``rejected.jsonl`` with a reason for every row that did not make it.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from xinglin import llm, records, schema
from xinglin.config import Recipe
from xinglin.records import Record, Rejected

FOLDER = "2-rewrite"
SETTINGS = ("rewrite",)
MARK = "not in three sections"


def inputs(recipe: Recipe) -> list[Path]:
    path = recipe.folder / "1-clean" / "records.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `xinglin clean` with this recipe first")
    return [path]


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    (source,) = inputs(recipe)
    results = asyncio.run(_send(recipe, source)) if recipe.rewrite.base_url else _pass(recipe, source)
    kept = [row for row in results if isinstance(row, Record)]
    rejected = [row for row in results if isinstance(row, Rejected)]
    outputs = [folder / "records.jsonl", folder / "rejected.jsonl"]
    records.write_jsonl(outputs[0], kept)
    records.write_jsonl(outputs[1], rejected)
    states = [row.meta["rewrite"] for row in kept]
    facts = {state: states.count(state) for state in ("accepted", "passed through", MARK)}
    return outputs, {"rows": len(results), **facts, "rejected": len(rejected)}


def _mark(record: Record, state: str) -> Record:
    return replace(record, meta={**record.meta, "rewrite": state})


def _pass(recipe: Recipe, source: Path) -> list[Record | Rejected]:
    rows: list[Record | Rejected] = []
    marked = total = 0
    for record in records.iterate(source):
        complete = not schema.check(record.answer)
        rows.append(_mark(record, "passed through" if complete else MARK))
        marked, total = marked + (not complete), total + 1
    if marked and recipe.rewrite.required:
        fixes = "set rewrite.base_url to have them rewritten, or rewrite.required=false to go on with them as they are"
        raise ValueError(f"{source}: {marked} of {total} rows are not in three sections; {fixes}")
    return rows


async def _send(recipe: Recipe, source: Path) -> list[Record | Rejected]:
    endpoint = llm.endpoint(recipe.rewrite.base_url, recipe.rewrite.model)
    rows: list[Record | Rejected] = []
    async with llm.client(endpoint, llm.tls(endpoint)) as http:
        for record in records.iterate(source):
            if not schema.check(record.answer):
                rows.append(_mark(record, "passed through"))
                continue
            reply = await llm.chat(http, endpoint, schema.rewrite_messages(record.question, record.answer), 2048)
            if reply.verdict == "stop":
                raise ValueError(reply.reason)
            problems = schema.check(reply.text) if reply.verdict == "ok" else [reply.reason]
            if problems:
                rows.append(Rejected(record.source, "; ".join(problems), record.answer[:200]))
                continue
            answer = {"role": "assistant", "content": schema.Answer.parse(reply.text).render()}
            rows.append(_mark(replace(record, messages=[*record.messages[:-1], answer]), "accepted"))
    return rows
