"""Claim: triage finds emergencies and leaves other questions alone, in under 5 ms, and no rewording lowers a level.

Run: ``python bench/triage.py``. Prints the table and writes ``bench/results/triage.json``. Every set is split by a hash of
its text: rules and classifier were tuned on the development half, the held-out half is only ever counted.
"""

import hashlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common

from xinglin.safety import triage as safety
from xinglin.safety.triage import Alert, by_rules, triage

SETS = Path(__file__).resolve().parent.parent / "tests" / "safety" / "sets"
sys.path.insert(0, str(SETS.parent))
from rewordings import KINDS  # noqa: E402

Turns = tuple[str, ...]
Judge = Callable[[Sequence[str]], Alert | None]
RUNS = 400  # texts timed
LENGTH = 2000  # characters of a timed text


# ---------------------------------------------------------------- the sets


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def turns_of(row: dict[str, Any]) -> Turns:
    return tuple(row["turns"]) if "turns" in row else (row["text"],)


def is_held_out(turns: Turns) -> bool:
    return hashlib.sha256("\n".join(turns).encode()).digest()[0] % 2 == 1


def half(name: str, held_out: bool) -> list[dict[str, Any]]:
    return [row for row in read(name) if is_held_out(turns_of(row)) == held_out]


def development(name: str) -> list[Turns]:
    return [turns_of(row) for row in half(name, False)]


# ---------------------------------------------------------------- counting


def is_alarm(alert: Alert | None) -> bool:
    """Whether the alert opens the red panel: level A or B."""
    return alert is not None and alert.level in "AB"


def reaches(alert: Alert | None, level: str) -> bool:
    return alert is not None and safety.LEVELS.index(alert.level) >= safety.LEVELS.index(level)


def rate(hits: int, of: int) -> dict[str, float | int]:
    """Share with its 95 % Wilson interval."""
    share, z = hits / of, 1.96
    middle, width = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = (middle - width) / (1 + z * z / of), (middle + width) / (1 + z * z / of)
    return {"count": hits, "n": of, "rate": round(share, 4), "low": round(max(low, 0), 4), "high": round(min(high, 1), 4)}


def figures(held_out: bool, judge: Judge) -> dict[str, dict[str, float | int]]:
    emergencies = [(judge(turns_of(row)), row["level"]) for row in half("emergency", held_out)]
    result = {
        "recall, A or B raised": rate(sum(is_alarm(alert) for alert, _ in emergencies), len(emergencies)),
        "recall, at least the level": rate(sum(reaches(alert, level) for alert, level in emergencies), len(emergencies)),
    }
    for name, label in (("negative", "hard negatives"), ("ordinary", "ordinary questions")):
        alerts = [judge(turns_of(row)) for row in half(name, held_out)]
        result[f"false alarms, {label}"] = rate(sum(map(is_alarm, alerts)), len(alerts))
        result[f"any alert (A, B or C), {label}"] = rate(sum(alert is not None for alert in alerts), len(alerts))
    return result


def by_group(held_out: bool) -> dict[str, str]:
    """Found of all, per group of emergencies."""
    found, all_of = Counter[str](), Counter[str]()
    for row in half("emergency", held_out):
        all_of[row["group"]] += 1
        found[row["group"]] += is_alarm(triage(turns_of(row)))
    return {group: f"{found[group]}/{all_of[group]}" for group in sorted(all_of)}


def downgrades(held_out: bool) -> dict[str, dict[str, int]]:
    """Per kind of rewording: how many texts that raised A or B were reworded, and how many lost a level by it."""
    originals = [(turns, alert) for row in half("emergency", held_out) if is_alarm(alert := triage(turns := turns_of(row)))]
    result = {}
    for kind, reword in KINDS.items():
        lowered = sum(not reaches(triage(reword(turns)), alert.level) for turns, alert in originals if alert)
        result[kind] = {"reworded": len(originals), "downgrades": lowered}
    return result


# ---------------------------------------------------------------- time


def milliseconds() -> dict[str, float]:
    """CPU time for 2,000 characters never seen before: quiet questions strung together, so that no rule ends early."""
    quiet = [turn for turns in development("ordinary") + development("negative") for turn in turns if not triage([turn])]
    text = "，".join(quiet)
    times = []
    for run in range(RUNS):
        start = run * 97 % (len(text) - LENGTH)
        began = time.process_time()
        triage([text[start : start + LENGTH]])
        times.append((time.process_time() - began) * 1000)
    times.sort()
    return {"median": round(times[RUNS // 2], 2), "p99": round(times[RUNS * 99 // 100], 2), "max": round(times[-1], 2)}


# ---------------------------------------------------------------- the table


def show(title: str, rows: dict[str, dict[str, float | int]]) -> None:
    print(f"\n{title}")
    for name, found in rows.items():
        interval = f"[{found['low']:.2%}, {found['high']:.2%}]"
        print(f"  {name:44} {found['count']:>4} of {found['n']:<4} {found['rate']:>8.2%}  {interval}")


def main() -> None:
    results: dict[str, Any] = {"time_ms_2000_characters": milliseconds()}
    for name, held_out in (("held-out half", True), ("development half (tuned on)", False)):
        for how, judge in (("rules and classifier", triage), ("rules alone", by_rules)):
            results[f"{name}, {how}"] = figures(held_out, judge)
            show(f"{name}, {how}", results[f"{name}, {how}"])
    results["found by group, held-out half"] = by_group(True)
    print("\nfound by group, held-out half")
    print("  " + "  ".join(f"{group} {found}" for group, found in results["found by group, held-out half"].items()))
    for name, held_out in (("held-out half", True), ("development half", False)):
        results[f"rewordings, {name}"] = downgrades(held_out)
        total = Counter[str]()
        print(f"\nrewordings, {name}")
        for kind, count in results[f"rewordings, {name}"].items():
            total.update(count)
            print(f"  {kind:30} {count['downgrades']:>3} downgrades of {count['reworded']}")
        print(f"  {'all':30} {total['downgrades']:>3} downgrades of {total['reworded']}")
    print(f"\nCPU milliseconds for 2,000 characters: {results['time_ms_2000_characters']}")
    common.save("triage", results)


if __name__ == "__main__":
    main()
