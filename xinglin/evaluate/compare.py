"""The evaluate stage: base and tuned answer the same questions; what the tuning changed, with statistics.

In: runs/<name>/4-train/adapter and 3-split/test.jsonl (validation.jsonl where test has no rows). Out: 5-evaluate/answers.jsonl
(every answer as it comes), results.json (all figures) and report.html (Chinese, self-contained). A row of results.json["rows"]::

    {"metric": "complete", "n": 200, "base": {"value": 0.015, …}, "tuned": {"value": 0.98, …}, "difference": {…}, "p_holm": 2e-57}
"""

import json
import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xinglin import __version__, records, schema
from xinglin.config import Recipe
from xinglin.engine import Engine
from xinglin.evaluate import metrics, report, sides, summary
from xinglin.evaluate.answers import Result, Work, collect
from xinglin.evaluate.sides import Side
from xinglin.records import Record

FOLDER = "5-evaluate"
SETTINGS = ("model", "revision", "hub", "seed", "serve", "evaluate")


@dataclass(frozen=True)
class Pair:
    """One question with both answers and their scores."""

    record: Record
    base: Result
    tuned: Result
    base_scores: metrics.Scores
    tuned_scores: metrics.Scores


def inputs(recipe: Recipe) -> list[Path]:
    return [questions_file(recipe), *sides.adapter_files(recipe.folder / "4-train" / "adapter")]


def questions_file(recipe: Recipe) -> Path:
    """The test rows where there are any, else the validation rows."""
    folder = recipe.folder / "3-split"
    for name in ("test.jsonl", "validation.jsonl"):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            return folder / name
    raise ValueError(f"{folder}: no test.jsonl or validation.jsonl with rows; `xinglin split` makes them")


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    source = questions_file(recipe)
    chosen = sample(records.load(source), recipe.evaluate.questions, recipe.seed)
    engine = Engine.load(
        recipe.base, recipe.folder / "4-train" / "adapter", recipe.serve.quantization, recipe.revision, recipe.hub
    )
    sides.canary(engine, [dialogue(record) for record in chosen[:4]])
    both = sides.pair(engine, recipe.serve.quantization, recipe.evaluate.max_new_tokens)
    pairs, rows = dialogues(chosen, both, folder / "answers.jsonl", recipe.evaluate.batch_size)
    results = {
        "rows": summary.conclude(rows),
        "departments": departments(pairs),
        "curves": curves(recipe.folder / "4-train" / "log.jsonl"),
        "pairs": [as_dict(pair) for pair in pairs],
        "repeat": repeat(recipe, source, both, engine.fingerprint),
    }
    return write(folder, results)


def write(folder: Path, results: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """results.json, report.html, and the table on stdout."""
    records.write_json(folder / "results.json", results)
    records.write_text(folder / "report.html", report.render(results))
    print(report.table(results))
    rows = summary.by_name(results["rows"])
    facts = {
        "questions": len(results["pairs"]),
        "complete_base": rows["complete"]["base"]["value"],
        "complete_tuned": rows["complete"]["tuned"]["value"],
    }
    return [folder / "results.json", folder / "report.html", folder / "answers.jsonl"], facts


def sample(rows: Sequence[Record], most: int, seed: int) -> list[Record]:
    """At most ``most`` rows in their order, the same ones under the same seed."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), most))]


def prompt(record: Record) -> list[schema.Message]:
    return schema.messages(record.question, record.history)


def dialogue(record: Record) -> list[schema.Message]:
    return [*prompt(record), record.messages[-1]]


def dialogues(
    chosen: Sequence[Record], both: tuple[Side, Side], path: Path, batch_size: int
) -> tuple[list[Pair], list[summary.Row]]:
    """Answers and reference losses of both sides, and the rows of all metrics of them."""
    answers = [ask(side, "answer", [prompt(record) for record in chosen], path, batch_size) for side in both]
    pairs = [
        Pair(record, *texts, *(score(record, text) for text in texts)) for record, *texts in zip(chosen, *answers, strict=True)
    ]
    clusters = [record.group for record in chosen]
    rows = [
        summary.row(
            metric,
            [pair.base_scores[metric.name] for pair in pairs],
            [pair.tuned_scores[metric.name] for pair in pairs],
            clusters,
        )
        for metric in summary.METRICS
    ]
    full = [dialogue(record) for record in chosen]
    if all(side.losses for side in both):
        base, tuned = [[(found["loss"], found["tokens"]) for found in ask(side, "loss", full, path, batch_size)] for side in both]
        rows += summary.loss_rows(base, tuned, clusters)
    return pairs, rows


def ask(side: Side, kind: str, prompts: Sequence[list[schema.Message]], path: Path, batch_size: int) -> list[Result]:
    """Results of one side in the order of the prompts, through the file of answers."""
    works = [Work(kind, side.name, side.setup, messages) for messages in prompts]
    call = side.complete if kind == "answer" else side.losses
    assert call, f"{side.name} cannot do {kind}"
    found = collect(path, works, call, batch_size)
    return [found[work.key] for work in works]


def score(record: Record, answer: Result) -> metrics.Scores:
    return metrics.measure(answer["text"], answer["finish_reason"]) | metrics.against(answer["text"], record.answer)


def departments(pairs: Sequence[Pair]) -> list[summary.Row]:
    """Completeness by department; rows without one are counted under 其他."""
    names = [pair.record.meta.get("department") or "其他" for pair in pairs]
    return summary.by_group(
        names, [pair.base_scores["complete"] for pair in pairs], [pair.tuned_scores["complete"] for pair in pairs]
    )


def curves(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Training and validation loss by step; empty where training left no log."""
    if not log.is_file():
        return {"loss": [], "eval_loss": []}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {name: [(line["step"], line[name]) for line in lines if name in line] for name in ("loss", "eval_loss")}


def as_dict(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.record.id,
        "department": pair.record.meta.get("department", ""),
        "history": pair.record.history,
        "question": pair.record.question,
        "reference": pair.record.answer,
        "base": {"text": pair.base["text"], "finish_reason": pair.base["finish_reason"], "scores": pair.base_scores},
        "tuned": {"text": pair.tuned["text"], "finish_reason": pair.tuned["finish_reason"], "scores": pair.tuned_scores},
    }


def repeat(recipe: Recipe, source: Path, both: tuple[Side, Side], fingerprint: str) -> dict[str, Any]:
    """What is needed to run the same comparison again."""
    return {
        "sides": {side.name: {"label": side.label, "setup": side.setup} for side in both},
        "questions": {
            "file": str(source),
            "sha256": records.sha256(source),
            "most": recipe.evaluate.questions,
            "seed": recipe.seed,
        },
        "decoding": {"greedy": True, "max_new_tokens": recipe.evaluate.max_new_tokens, "quantization": recipe.serve.quantization},
        "model": {"base": recipe.model, "revision": recipe.revision, "hub": recipe.hub},
        "prompt": fingerprint,
        "versions": {
            "xinglin": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "peft", "sacrebleu")},
        },
    }
