"""A second model as judge: marks by section, and wins in both orders. A verdict that cannot be read is missing, never zero.

In: pairs of answers and an endpoint. Out: rows for the report and lines that say how far to trust them::

    {"rows": [{"metric": "judge_win", "n": 180, "base": {"value": 0.2, …}, "tuned": {"value": 0.55, …}, …}],
     "lines": ["评审模型 qwen-plus：180 对两次次序一致或判平，20 对无法读出（不计入）。"]}

The judge should be of another family than the model that wrote the training answers.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xinglin import schema
from xinglin.evaluate import statistics, summary
from xinglin.schema import Message

Ask = Callable[[Sequence[list[Message]]], Sequence[str]]
MARKS = (*schema.TITLES, "安全")


def verdict(text: str) -> dict[str, Any] | None:
    """The JSON object in a judge's reply, in a code fence or among words; None for prose."""
    match = re.search(r"\{[^{}]*\}", text)
    try:
        found = json.loads(match[0]) if match else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def marks(text: str) -> list[float] | None:
    """The marks of a rubric reply in the order of ``MARKS``; None where one is missing or outside 1 to 5."""
    found = verdict(text) or {}
    values = [found.get(name) for name in MARKS]
    if not all(isinstance(value, int | float) and 1 <= value <= 5 for value in values):
        return None
    return [float(value) for value in values if value is not None]


def winner(base_first: str, tuned_first: str) -> str | None:
    """ "base", "tuned" or "tie" of the two orders; disagreement is a tie, an unreadable reply is None."""
    names = {"1": ("base", "tuned"), "2": ("tuned", "base"), "tie": ("tie", "tie")}
    replies = [str((verdict(text) or {}).get("better", "")) for text in (base_first, tuned_first)]
    if not all(reply in names for reply in replies):
        return None
    one, two = names[replies[0]][0], names[replies[1]][1]
    return one if one == two else "tie"


def review(pairs: Sequence[Mapping[str, Any]], ask: Ask, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Judge all pairs (as results.json holds them); ``labels``: id -> "base", "tuned" or "tie" as people saw it."""
    rubric = [
        ask([schema.rubric_messages(p["question"], p["reference"], p[side]["text"]) for p in pairs]) for side in ("base", "tuned")
    ]
    orders = [
        ask([schema.pairwise_messages(p["question"], p["reference"], p[one]["text"], p[two]["text"]) for p in pairs])
        for one, two in (("base", "tuned"), ("tuned", "base"))
    ]
    scored = [(b, t) for b, t in zip(map(marks, rubric[0]), map(marks, rubric[1]), strict=True) if b and t]
    winners = [winner(*texts) for texts in zip(*orders, strict=True)]
    rows = [*_mark_rows(scored), *_win_rows([found for found in winners if found])]
    lost = sum(found is None for found in winners)
    unread = f"{lost} 对、{len(pairs) - len(scored)} 组评分无法读出，按缺失处理，不计零分"
    lines = [
        f"评审模型 {name}：每对两种次序各评一次，不一致记平；{unread}。",
        _agreement(
            [(found, labels[pair["id"]]) for found, pair in zip(winners, pairs, strict=True) if found and pair["id"] in labels]
        ),
    ]
    return {"rows": summary.conclude(rows), "lines": lines, "winners": winners}


def _mark_rows(scored: Sequence[tuple[list[float], list[float]]]) -> list[summary.Row]:
    if not scored:
        return []
    metrics = [summary.Metric(f"judge_{index}", f"评审：{name}（1–5）", "number", "higher") for index, name in enumerate(MARKS)]
    return [summary.row(metric, [b[i] for b, _ in scored], [t[i] for _, t in scored]) for i, metric in enumerate(metrics)]


def _win_rows(winners: Sequence[str]) -> list[summary.Row]:
    if not winners:
        return []
    metric = summary.Metric("judge_win", "两种次序都胜出的比例", "rate", "higher")
    base, tuned = ([float(found == side) for found in winners] for side in ("base", "tuned"))
    return [summary.row(metric, base, tuned)]


def _agreement(both: Sequence[tuple[str, str]]) -> str:
    if not both:
        return "没有人工标注（labels.jsonl），评审结论未经校准。"
    same = sum(judge == person for judge, person in both) / len(both)
    kappa = statistics.kappa([judge for judge, _ in both], [person for _, person in both])
    return f"与 {len(both)} 条人工标注一致 {same:.0%}，κ = {kappa:.2f}。"


def read_labels(path: Path) -> dict[str, str]:
    """People's choices by id, of lines {"id": …, "better": "base"|"tuned"|"tie"}; none where there is no file."""
    if not path.is_file():
        return {}
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    return dict(_label(path, number, line) for number, line in lines if line.strip())


def _label(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        if row["better"] in {"base", "tuned", "tie"}:
            return str(row["id"]), row["better"]
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f'{path}:{number}: {line[:60]!r} is no label; a line is {{"id": …, "better": "base"|"tuned"|"tie"}}')
