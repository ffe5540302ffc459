"""Charts as inline SVG: paired bars with intervals, and loss curves. No script, no outside font.

In: rows of results.json, or points (step, value). Out: one <svg> element as text.
"""

from collections.abc import Mapping, Sequence
from html import escape

from xinglin.evaluate.summary import Row

COLORS = {"base": "var(--base)", "tuned": "var(--tuned)"}  # set in report.css, for light and dark
Names = Mapping[str, str]  # what the sides are called: {"base": "基座", "tuned": "微调"}, or A and B
WIDTH, LEFT, SPAN = 800, 230, 480  # of the bars: the whole picture, where zero is, from 0 to 100 %
LONGEST = 28  # characters of a label
Points = Sequence[tuple[float, float]]


def bars(rows: Sequence[Row], names: Names, caption: str) -> str:
    """Horizontal bars from 0 to 100 %, base above tuned, a thin line for the 95 % interval, one group a row."""
    height = 42 * len(rows) + 30
    parts = [_scale(height)]
    for index, row in enumerate(rows):
        top = 42 * index + 5
        label = row["label"] if len(row["label"]) <= LONGEST else f"{row['label'][: LONGEST - 1]}…"
        parts.append(f'<text x="{LEFT - 10}" y="{top + 20}" text-anchor="end">{escape(label)}（{row["n"]}）</text>')
        parts += [_bar(row, side, names[side], top + 16 * place) for place, side in enumerate(COLORS)]
    return _svg(WIDTH, height, caption, "".join(parts))


def _scale(height: int) -> str:
    lines = []
    for share in (0, 25, 50, 75, 100):
        x = LEFT + SPAN * share / 100
        lines.append(f'<line x1="{x}" x2="{x}" y1="0" y2="{height - 26}" class="grid"/>')
        lines.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle" class="quiet">{share}%</text>')
    return "".join(lines)


def _bar(row: Row, side: str, name: str, top: int) -> str:
    value, low, high = (LEFT + SPAN * row[side][key] for key in ("value", "low", "high"))
    return (
        f'<rect x="{LEFT}" y="{top}" width="{max(value - LEFT, 1):.1f}" height="13" fill="{COLORS[side]}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{top + 6.5}" y2="{top + 6.5}" class="interval"/>'
        f'<text x="{LEFT + SPAN + 20}" y="{top + 11}" class="quiet">{escape(name)} {row[side]["value"] * 100:.0f}%</text>'
    )


def curves(training: Points, validation: Points, caption: str) -> str:
    """Training loss as a thin line, validation loss as a thick one with dots, over the optimizer steps."""
    points = [*training, *validation]
    right, top = max(step for step, _ in points), max(value for _, value in points)
    bottom = min(value for _, value in points)
    span = (top - bottom) or 1.0

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return 50 + 640 * point[0] / max(right, 1), 12 + 220 * (top - point[1]) / span

    ticks = "".join(
        f'<line x1="50" x2="690" y1="{12 + 55 * i}" y2="{12 + 55 * i}" class="grid"/>'
        f'<text x="44" y="{16 + 55 * i}" text-anchor="end" class="quiet">{top - span * i / 4:.2f}</text>'
        for i in range(5)
    )
    steps = "".join(
        f'<text x="{50 + 160 * i}" y="252" text-anchor="middle" class="quiet">{right * i / 4:.0f}</text>' for i in range(5)
    )
    lines = _line([place(p) for p in training], COLORS["base"], 1.2) + _line([place(p) for p in validation], COLORS["tuned"], 2.5)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLORS["tuned"]}"/>' for x, y in map(place, validation))
    return _svg(720, 262, caption, ticks + steps + lines + dots)


def _line(points: Points, color: str, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>' if points else ""


def _svg(width: int, height: int, caption: str, content: str) -> str:
    return (
        f'<div class="wide"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">{content}</svg></div>'
    )
