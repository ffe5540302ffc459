"""Counters of the server in the text format of Prometheus.

In: counts and times as requests come and go. Out: lines such as ``xinglin_requests_total{status="200"} 12``.
"""

from collections import Counter
from dataclasses import dataclass, field

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
HELP = {
    "xinglin_requests_total": "Requests answered, by status.",
    "xinglin_alerts_total": "Questions with a red flag, by level.",
    "xinglin_tokens_total": "Tokens read (prompt) and written (completion).",
    "xinglin_aborted_total": "Answers stopped because the client went away.",
    "xinglin_failures_total": "Answers that ended in an error of the model.",
}


@dataclass
class Metrics:
    """``counts`` by (name, labels); ``first`` holds the times to the first text in seconds, by bucket."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: Counter[float] = field(default_factory=Counter)
    first_sum: float = 0.0
    first_count: int = 0

    def add(self, name: str, value: int = 1, **labels: str) -> None:
        self.counts[f"xinglin_{name}_total", ",".join(f'{key}="{text}"' for key, text in labels.items())] += value

    def first_text(self, seconds: float) -> None:
        self.first_sum += seconds
        self.first_count += 1
        self.first.update(bound for bound in BUCKETS if seconds <= bound)

    def render(self, running: int, queued: int) -> str:
        lines: list[str] = []
        for name, text in HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter", *self._counter(name)]
        lines += _gauge("xinglin_running", "Answers being written.", running)
        lines += _gauge("xinglin_queued", "Requests waiting for the model.", queued)
        return "\n".join([*lines, *self._first()]) + "\n"

    def _counter(self, name: str) -> list[str]:
        found = [(labels, value) for (key, labels), value in sorted(self.counts.items()) if key == name]
        return [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in found] or [f"{name} 0"]

    def _first(self) -> list[str]:
        name = "xinglin_first_text_seconds"
        lines = [f"# HELP {name} Time from the request to its first text.", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{le="{bound}"}} {self.first[bound]}' for bound in BUCKETS]
        lines += [f'{name}_bucket{{le="+Inf"}} {self.first_count}']
        return [*lines, f"{name}_sum {self.first_sum:.6f}", f"{name}_count {self.first_count}"]


def _gauge(name: str, text: str, value: int) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
