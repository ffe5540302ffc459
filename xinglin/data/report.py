"""Report."""

from collections import Counter
from typing import Any

from xinglin.reading import Kind
from xinglin.records import Record, Rejected


class Tally:
    def __init__(self, kinds: dict[str, Kind], max_length: int) -> None:
        self.kinds, self.max_length = kinds, max_length
        self.kept, self.reasons = 0, Counter[str]()

    def keep(self, record: Record, kinds: str) -> None:
        self.kept += 1

    def reject(self, row: Rejected, kinds: str) -> None:
        self.reasons[row.reason.split(":")[0]] += 1

    def counts(self) -> dict[str, Any]:
        return {"rows": self.kept + self.reasons.total(), "kept": self.kept, **self.reasons}

    def facts(self) -> dict[str, Any]:
        return self.counts()


def page(tally: Tally, name: str) -> str:
    return "<!doctype html>"
