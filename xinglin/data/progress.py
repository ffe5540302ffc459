"""Progress: a line on stderr with rows per second and the time left.

In: a total, in bytes or rows. Out: on a terminal a bar that is redrawn, elsewhere a line every ten seconds::

    clean: preparing  41%  312,000 rows  18,204 rows/s  0:00:25 left
"""

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console


class Progress:
    def __init__(self, task: str, total: int, unit: str = "rows") -> None:
        self.task, self.total, self.unit = task, max(total, 1), unit
        self.started = self.shown = time.monotonic()
        self.done = self.rows = 0
        self.console = Console(stderr=True, highlight=False)
        self.interval = 0.1 if self.console.is_terminal else 10.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.console.is_terminal:
            self.console.file.write("\r\x1b[K")

    def update(self, done: int, rows: int, note: str = "") -> None:
        """``done`` of the total, and ``rows`` so far; ``note`` stands behind them."""
        now, self.done, self.rows = time.monotonic(), done, rows
        if now - self.shown < self.interval:
            return
        self.shown = now
        line = self.line(now - self.started) + f"  {note}" * bool(note)
        self.console.file.write(f"\r\x1b[K{line}" if self.console.is_terminal else f"{line}\n")
        self.console.file.flush()

    def line(self, seconds: float) -> str:
        share = min(self.done / self.total, 1.0)
        left = timedelta(seconds=round(seconds / share - seconds)) if share else "?"
        rate = f"{self.rows / max(seconds, 1e-9):,.0f} {self.unit}/s"
        return f"{self.task}  {share:.0%}  {self.rows:,} {self.unit}  {rate}  {left} left"
