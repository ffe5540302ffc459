"""Rewrite: answers that are not in three sections go through a language model; complete ones pass as they are.

In: ``1-clean/records.jsonl``. Out, in ``2-rewrite/``: ``records.jsonl``, ``meta.rewrite`` saying what happened to each row::

    {"id": "b3e1…", "group": "b3e1…", "messages": […], "source": {…}, "meta": {"rewrite": "accepted", "rewrite_model": "m"}}

``rejected.jsonl`` with a reason for every row that did not make it, ``report.html``, and ``journal.sqlite``, which remembers
every row and every cent: kill the stage anywhere, run it again, and only what is unfinished is sent.
"""

import asyncio
import contextlib
import gc
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from xinglin import llm, records, schema
from xinglin.config import Recipe
from xinglin.config import Rewrite as Settings
from xinglin.data import journal as journals
from xinglin.data import rewrite_job as rules
from xinglin.data import rewrite_progress as progress
from xinglin.data import rewrite_report as report
from xinglin.data.journal import ACCEPTED, FAILED, PASSED, PENDING, REJECTED, Entry, Journal
from xinglin.data.rewrite_job import Job
from xinglin.data.sending import INTERRUPTED, Sender
from xinglin.records import Record, Rejected

FOLDER = "2-rewrite"
SETTINGS = ("rewrite",)
MARK = "not in three sections"
FLAGGED = "accepted with findings"


def inputs(recipe: Recipe) -> list[Path]:
    path = recipe.folder / "1-clean" / "records.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `xinglin clean` with this recipe first")
    return [path]


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """Send what is unfinished, then write the records. Raises ``ValueError`` while any row is unfinished."""
    (source,) = inputs(recipe)
    if not recipe.rewrite.base_url:
        return _without_model(recipe, source, folder)
    job = rules.prepare(recipe)
    before = _stamp(source)
    try:
        return _with_model(job, source, folder, recipe.name, before)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise error if _stamp(source) == before else rules.changed(source) from error


def _stamp(source: Path) -> tuple[int, ...]:
    """What tells a file from another one in its place."""
    with contextlib.suppress(FileNotFoundError):
        found = source.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return ()


def _with_model(job: Job, source: Path, folder: Path, owner: str, before: tuple[int, ...]) -> tuple[list[Path], dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "journal.sqlite"
    journal = Journal(path, owner)
    try:
        journal.plan(_entries(job, source))
        _decide_again(job, journal, source)
        stopped = asyncio.run(_send(job, journal, source))
    finally:
        journal.close()
    if _stamp(source) != before:
        raise rules.changed(source)
    found = journals.read(path)
    reports = report.write(folder, source, path, job.settings)
    if stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if stopped or found.unfinished:
        raise ValueError(_unfinished(found, stopped))
    return [*_export(job, source, folder), *reports], _facts(found, job.settings)


def _unfinished(found: journals.Summary, stopped: str) -> str:
    counts = f"{found.unfinished} of {found.rows} rows unfinished ({found.states[FAILED]} failed)"
    return f"{stopped or 'rewrite'}; {counts}; the same command goes on with just these"


def _facts(found: journals.Summary, settings: Settings) -> dict[str, Any]:
    states = {state: found.states[state] for state in (ACCEPTED, PASSED, REJECTED)}
    money = {"price": round(found.price, 4)} if settings.prices else {}
    return {
        "rows": found.rows,
        **states,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        **money,
    }


# ---------------------------------------------------------------- without an endpoint


def _without_model(recipe: Recipe, source: Path, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """Complete rows pass; the others go on marked where the recipe allows it, and are an error where it does not."""
    counts = {PASSED: 0, MARK: 0}

    def rows() -> Iterator[Record]:
        for record in records.iterate(source):
            state = MARK if schema.check(record.answer) else PASSED
            counts[state] += 1
            yield _marked(record, state)
        if counts[MARK] and recipe.rewrite.required:
            fixes = "set rewrite.base_url=… to have them rewritten, or rewrite.required=false to go on with them as they are"
            raise ValueError(f"{source}: {counts[MARK]} of {sum(counts.values())} rows are not in three sections; {fixes}")

    outputs = [folder / "records.jsonl", folder / "rejected.jsonl"]
    total = records.write_jsonl(outputs[0], rows())
    records.write_jsonl(outputs[1], [])
    return [*outputs, *report.write_counts(folder, counts)], {"rows": total, **counts}


def _marked(record: Record, state: str) -> Record:
    return replace(record, meta={**record.meta, "rewrite": state})


# ---------------------------------------------------------------- with one


def _entries(job: Job, source: Path) -> Iterator[Entry]:
    for position, record in positions(source):
        passed = not schema.check(record.answer)
        state = PASSED if passed else PENDING
        model, prompt = ("", "") if passed else (job.endpoint.model, job.prompt)
        yield Entry(record.id, rules.request_of(job, record), state, model=model, prompt=prompt, position=position)


def positions(source: Path) -> Iterator[tuple[int, Record]]:
    """Records with the byte they start at."""
    position = 0
    with open(source, "rb") as file:
        for record in records.iterate(source):
            yield position, record
            position += len(file.readline())


def _decide_again(job: Job, journal: Journal, source: Path) -> None:
    """Judge stored answers by the rules of today, without a request."""
    with open(source, "rb") as file:
        while found := journal.outdated(job.policy):
            journal.write([rules.judge_again(job, rules.read(job, file, entry), entry) for entry in found])


async def _send(job: Job, journal: Journal, source: Path) -> str:
    """Send until nothing is left or something stops it; returns why it stopped."""
    sender = Sender(job, journal, source, journals.read(journal.path))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sender.interrupt)
    try:
        with _rare_collections():
            await sender.work()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return sender.stopped


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """A thousand rows in flight are many young objects; searched for cycles as often as usual they cost a tenth of the time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


# ---------------------------------------------------------------- result


def _export(job: Job, source: Path, folder: Path) -> list[Path]:
    outputs = [folder / "records.jsonl", folder / "rejected.jsonl"]
    with (
        journals.reading(folder / "journal.sqlite") as connection,
        records.atomic(outputs[0]) as kept,
        records.atomic(outputs[1]) as rejected,
    ):
        for record in records.iterate(source):
            row = _result(job, record, _entry(connection, job, record, source))
            (kept if isinstance(row, Record) else rejected).write(records.to_json(row) + "\n")
    return outputs


def _entry(connection: sqlite3.Connection, job: Job, record: Record, source: Path) -> Entry:
    found = connection.execute(
        f"{journals.SELECT} WHERE id = ? AND request = ?", (record.id, rules.request_of(job, record))
    ).fetchone()
    if found is None:
        raise rules.changed(source)
    return Entry(*found)


def _result(job: Job, record: Record, entry: Entry) -> Record | Rejected:
    if entry.state == PASSED:
        return _marked(record, PASSED)
    if entry.state == REJECTED:
        return Rejected(record.source, entry.reason, record.answer[:200])
    assert entry.state == ACCEPTED, f"{entry.id} is {entry.state}"
    findings = json.loads(entry.findings)
    answer = {"role": "assistant", "content": rules.finished_text(entry.reply)}
    marked = _marked(replace(record, messages=[*record.messages[:-1], answer]), FLAGGED if findings else ACCEPTED)
    extra: dict[str, Any] = {"rewrite_model": entry.model, "rewrite_prompt": entry.prompt}
    extra |= {"rewrite_judge": entry.judge} if job.judge else {}
    extra |= {"rewrite_findings": [f"{kind}: {span or message}" for kind, span, message in findings]} if findings else {}
    return replace(marked, meta={**marked.meta, **extra})


# ---------------------------------------------------------------- --dry-run and --status


def dry_run(recipe: Recipe) -> str:
    """Rows, tokens and price of the requests that would be sent; sends nothing, writes nothing."""
    (source,) = inputs(recipe)
    job = rules.prepare(recipe)
    path = recipe.folder / FOLDER / "journal.sqlite"
    counts = {"rows": 0, PASSED: 0, "finished": 0, "to send": 0}
    prompts, completions = Counter[str](), Counter[str]()
    with journals.reading(path) if path.is_file() else contextlib.nullcontext() as known:
        for record in records.iterate(source):
            counts["rows"] += 1
            state = _state(job, record, known)
            counts[state] += 1
            for model, prompt, completion in rules.expected(job, record) if state == "to send" else ():
                prompts[model] += prompt
                completions[model] += completion
    usages = {model: llm.Usage(prompts[model], 0, completions[model]) for model in prompts}
    price = sum(rules.price_of(job.settings.prices, model, usage) for model, usage in usages.items())
    return progress.dry_run(job.settings, counts, usages, price)


def status(recipe: Recipe) -> str:
    """Counts, rate and money of a running or stopped journal."""
    return progress.status(recipe.folder / FOLDER / "journal.sqlite")


def _state(job: Job, record: Record, known: sqlite3.Connection | None) -> str:
    if not schema.check(record.answer):
        return PASSED
    if known is None:
        return "to send"
    found = known.execute(
        "SELECT state FROM row WHERE id = ? AND request = ?", (record.id, rules.request_of(job, record))
    ).fetchone()
    return "finished" if found and found[0] not in journals.UNFINISHED else "to send"
