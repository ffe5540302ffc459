"""The report: one self-contained HTML page in Chinese, and the short table for the terminal.

In: the results of a comparison as results.json holds them. Out: text; no script, no outside file, every value escaped.
"""

from html import escape
from typing import Any

from xinglin.evaluate.summary import Row


def number(value: float, kind: str, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if value != value:
        return "–"
    return f"{value * 100:{sign}.1f}%" if kind != "number" else f"{value:{sign}.2f}"


def table(results: dict[str, Any]) -> str:
    """base | tuned | difference with its interval, one metric a line, for a terminal."""
    lines = [f"{'metric':<14}{'n':>6}{'base':>10}{'tuned':>10}{'difference':>12}  95 % interval"]
    for row in results["rows"]:
        low, high = (number(row["difference"][end], row["kind"], True) for end in ("low", "high"))
        figures = [number(row[side]["value"], row["kind"], side == "difference") for side in ("base", "tuned", "difference")]
        lines.append(
            f"{row['metric']:<14}{row['n']:>6}{figures[0]:>10}{figures[1]:>10}{figures[2]:>12}  [{low}, {high}] {row['shown']}"
        )
    return "\n".join(lines)


def cell(row: Row, side: str) -> str:
    value = row[side]
    signed = side == "difference" and row["metric"] != "perplexity"
    low, high = (number(value[end], row["kind"], signed) for end in ("low", "high"))
    return f"<td>{number(value['value'], row['kind'], signed)}<small>{low} ~ {high}</small></td>"


def render(results: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(row['label'])}</th><td>{row['n']}</td>{cell(row, 'base')}{cell(row, 'tuned')}{cell(row, 'difference')}</tr>"
        for row in results["rows"]
    )
    return f"<!doctype html><html lang=zh><meta charset=utf-8><title>评估报告</title><body><h1>评估报告</h1><table>{rows}</table></body></html>"
