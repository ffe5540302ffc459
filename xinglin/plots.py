"""Plots of a training run: losses and learning rate over true steps, as PNG and inside one self-contained HTML page.

In: the lines of ``log.jsonl``. Out: ``loss.png`` and ``report.html`` (no script, no request; the curves are inline SVG).
"""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import font_manager, ticker
from matplotlib.figure import Figure

from xinglin import records

# Noto Sans CJK SC (OFL) cut down to the labels below by fonts/subset.py: a clean machine has no Chinese font.
FONT = Path(__file__).parent / "fonts" / "xinglin-labels.otf"
LABELS = {
    "loss": "训练损失", "eval_loss": "验证损失", "best": "最佳", "learning_rate": "学习率",
    "step": "步数", "epoch": "轮次", "title": "训练曲线",
}  # fmt: skip
STYLE = """body{font:16px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
svg{max-width:100%;height:auto}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid #d8dee4;text-align:right}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}svg{background:#fff;border-radius:6px}td,th{border-color:#30363d}}"""

Line = dict[str, Any]


def training_curves(lines: Sequence[Line], png: Path, page: Path) -> None:
    """Draw ``lines`` (with step, epoch, loss or eval_loss, learning_rate) to ``png`` and ``page``."""
    figure = draw(lines)
    with records.room(png):
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, dpi=144)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    records.write_text(page, _page(lines, svg[svg.index("<svg") :]))


def draw(lines: Sequence[Line]) -> Figure:
    """Two axes over the same steps: both losses with the best step marked, and the learning rate; epochs on top."""
    font_manager.fontManager.addfont(str(FONT))
    name = font_manager.FontProperties(fname=str(FONT)).get_name()
    settings: dict[Any, Any] = {
        "font.family": [name, "DejaVu Sans"],
        "axes.unicode_minus": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "xinglin",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        _curve(losses, lines, "loss", "-", "#57606a")
        _curve(losses, lines, "eval_loss", "--o", "#0b7a5b")
        _mark_best(losses, lines)
        losses.set_ylabel(LABELS["loss"] + " / " + LABELS["eval_loss"])
        losses.legend(frameon=False)
        _epochs_on_top(losses, lines)
        _curve(rates, lines, "learning_rate", "-", "#9a6700")
        rates.set_ylabel(LABELS["learning_rate"])
        rates.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=False)
        rates.set_xlabel(LABELS["step"])
        rates.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        for axes in (losses, rates):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        figure.draw_without_rendering()
    return figure


def _curve(axes: Any, lines: Sequence[Line], key: str, style: str, color: str) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    axes.plot([x for x, _ in points], [y for _, y in points], style, color=color, markersize=4, linewidth=1.5, label=LABELS[key])


def _mark_best(axes: Any, lines: Sequence[Line]) -> None:
    evaluated = [line for line in lines if "eval_loss" in line]
    if evaluated:
        best = min(evaluated, key=lambda line: float(line["eval_loss"]))
        text = f"{LABELS['best']} {best['eval_loss']:.3f} ({LABELS['step']} {best['step']})"
        axes.annotate(text, (best["step"], best["eval_loss"]), (-6, 16), textcoords="offset points", ha="right", color="#0b7a5b")


def _epochs_on_top(axes: Any, lines: Sequence[Line]) -> None:
    last = max(lines, key=lambda line: int(line["step"]))
    per_epoch = last["step"] / max(last["epoch"], 1e-9)
    top = axes.secondary_xaxis("top", functions=(lambda step: step / per_epoch, lambda epoch: epoch * per_epoch))
    top.set_xlabel(LABELS["epoch"])


def _page(lines: Sequence[Line], svg: str) -> str:
    columns = ("step", "epoch", "loss", "eval_loss", "learning_rate")
    head = "".join(f"<th>{LABELS[key]}</th>" for key in columns)
    rows = "".join("<tr>" + "".join(f"<td>{_cell(line.get(key))}</td>" for key in columns) + "</tr>" for line in lines)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{LABELS["title"]}</title><style>{STYLE}</style>'
        f'<h1>{LABELS["title"]}</h1><div role="img" aria-label="{LABELS["title"]}">{svg}</div>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></html>\n"
    )


def _cell(value: object) -> str:
    return "" if value is None else escape(f"{value:.4g}" if isinstance(value, float) else str(value))
