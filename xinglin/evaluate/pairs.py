"""One question with both answers and their scores, and the rows of the report that come from such pairs.

In: a record and the answer of each side. Out: a ``Pair``; scores are those of metrics.py and, as zeros and ones, the findings of
the lint by kind: {"complete": 1.0, "characters": 412.0, "bleu4": 0.21, "unknown_drug": 0.0, …}.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xinglin import schema
from xinglin.evaluate import metrics, summary
from xinglin.evaluate.answers import Result
from xinglin.records import Record
from xinglin.safety import lint
from xinglin.safety.lint import Finding


@dataclass(frozen=True)
class Scored:
    """An answer, its numbers, and what the lint found in it."""

    answer: Result
    scores: metrics.Scores
    findings: list[Finding]


@dataclass(frozen=True)
class Pair:
    record: Record
    base: Scored
    tuned: Scored


def prompt(record: Record) -> list[schema.Message]:
    return schema.messages(record.question, record.history)


def dialogue(record: Record) -> list[schema.Message]:
    """The prompt with the reference as its answer."""
    return [*prompt(record), {"role": "assistant", "content": record.answer}]


def pair(record: Record, base: Result, tuned: Result) -> Pair:
    return Pair(record, score(record, base), score(record, tuned))


def score(record: Record, answer: Result) -> Scored:
    """All numbers of one answer; overlap with a reference only where there is one."""
    findings = lint.check(answer["text"], record.question, record.history)
    kinds = {finding.kind for finding in findings}
    scores = metrics.measure(answer["text"], answer["finish_reason"]) | {kind: float(kind in kinds) for kind in lint.KINDS}
    if record.answer:
        scores |= metrics.against(answer["text"], record.answer)
    return Scored(answer, scores, findings)


def rows(answered: Sequence[Pair]) -> list[summary.Row]:
    """One row per metric, over the pairs that have it; near-duplicates (one group) count as one draw of the bootstrap."""
    found = []
    for metric in summary.METRICS:
        have = [pair for pair in answered if metric.name in pair.base.scores]
        if have:
            base, tuned = [pair.base.scores[metric.name] for pair in have], [pair.tuned.scores[metric.name] for pair in have]
            found.append(summary.row(metric, base, tuned, [pair.record.group for pair in have]))
    return found


def departments(answered: Sequence[Pair]) -> list[summary.Row]:
    """Completeness by department; rows without one, and departments of fewer than three questions, are counted under 其他."""
    given = [str(pair.record.meta.get("department") or "") for pair in answered]
    names = [name if name and given.count(name) >= 3 else "其他" for name in given]
    base, tuned = [pair.base.scores["complete"] for pair in answered], [pair.tuned.scores["complete"] for pair in answered]
    return summary.by_group(names, base, tuned, [pair.record.group for pair in answered])


def as_dict(pair: Pair) -> dict[str, Any]:
    """A pair as results.json holds it."""
    return {
        "id": pair.record.id,
        "department": pair.record.meta.get("department", ""),
        "history": pair.record.history,
        "question": pair.record.question,
        "reference": pair.record.answer,
        "base": _side(pair.base),
        "tuned": _side(pair.tuned),
    }


def _side(scored: Scored) -> dict[str, Any]:
    return {
        "text": scored.answer["text"],
        "finish_reason": scored.answer["finish_reason"],
        "scores": scored.scores,
        "findings": [asdict(finding) for finding in scored.findings],
    }
