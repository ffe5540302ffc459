"""Claim: triage finds emergencies and leaves other questions alone, in under 5 ms of CPU time, and no rewording lowers a level.

Run: ``python bench/triage.py``. Prints the table and writes ``bench/results/triage.json``. Its sets were trained on, so these
figures only say that nothing broke; ``python bench/triage.py --sets FOLDER`` measures sets the fit has not seen.
"""

import argparse
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
FOLDERS = tuple(SETS / name for name in ("first", "second", "third", "fourth", "fifth", "sixth"))
sys.path.insert(0, str(SETS.parent))
from rewordings import KINDS  # noqa: E402

Turns = tuple[str, ...]
Judge = Callable[[Sequence[str]], Alert | None]
RUNS = 400  # texts timed
LENGTH = 2000  # characters of a timed text


# ---------------------------------------------------------------- the sets


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return lines(folder / f"{name}.jsonl")


def turns_of(row: dict[str, Any]) -> Turns:
    return tuple(row["turns"]) if "turns" in row else (row["text"],)


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


def figures(folder: Path, judge: Judge) -> dict[str, dict[str, float | int]]:
    emergencies = [(judge(turns_of(row)), row["level"]) for row in read(folder, "emergency")]
    result = {
        "recall, A or B raised": rate(sum(is_alarm(alert) for alert, _ in emergencies), len(emergencies)),
        "recall, at least the level": rate(sum(reaches(alert, level) for alert, level in emergencies), len(emergencies)),
    }
    for name, label in (("negative", "hard negatives"), ("ordinary", "ordinary questions")):
        alerts = [judge(turns_of(row)) for row in read(folder, name)]
        result[f"false alarms, {label}"] = rate(sum(map(is_alarm, alerts)), len(alerts))
        result[f"any alert (A, B or C), {label}"] = rate(sum(alert is not None for alert in alerts), len(alerts))
    return result


def by_group(folder: Path) -> dict[str, str]:
    """Alarms of all, per group of emergencies and per kind of other questions."""
    found, all_of = Counter[str](), Counter[str]()
    for name in ("emergency", "negative"):
        for row in read(folder, name):
            group = row.get("group") or row["kind"]
            all_of[group] += 1
            found[group] += is_alarm(triage(turns_of(row)))
    return {group: f"{found[group]}/{all_of[group]}" for group in all_of}


def downgrades(folder: Path) -> dict[str, dict[str, int]]:
    """Per kind of rewording: how many texts that raised A or B were reworded, and how many lost a level by it."""
    originals = [(turns, alert) for row in read(folder, "emergency") if is_alarm(alert := triage(turns := turns_of(row)))]
    result = {}
    for kind, reword in KINDS.items():
        lowered = sum(not reaches(triage(reword(turns)), alert.level) for turns, alert in originals if alert)
        result[kind] = {"reworded": len(originals), "downgrades": lowered}
    return result


# ---------------------------------------------------------------- time


def milliseconds_as_written(folders: Sequence[Path]) -> dict[str, float]:
    """CPU time of every question of the sets as it is, with two earlier turns (other questions) that were read before."""
    rows = [turns_of(row) for folder in folders for name in ("emergency", "negative", "ordinary") for row in read(folder, name)]
    times = []
    for place, turns in enumerate(rows):
        talk = (*rows[place * 7 % len(rows)], *rows[place * 11 % len(rows)], *turns)[-3:]
        triage(talk[:-1])
        times.append(_timed(talk))
    return _spread(times)


def _timed(turns: Turns) -> float:
    began = time.process_time()
    triage(turns)
    return (time.process_time() - began) * 1000


def _spread(times: list[float]) -> dict[str, float]:
    times.sort()
    count = len(times)
    return {"median": round(times[count // 2], 2), "p99": round(times[count * 99 // 100], 2), "max": round(times[-1], 2)}


def milliseconds(folders: Sequence[Path]) -> dict[str, float]:
    """CPU time of one question of 2,000 characters never seen before, with three earlier turns of that length that were.

    Questions that raise nothing are strung together, so that no rule ends early.
    """
    rows = [row for folder in folders for name in ("ordinary", "negative") for row in read(folder, name)]
    text = "，".join(turn for row in rows for turn in turns_of(row) if not triage([turn]))
    before = tuple(text[start : start + LENGTH] for start in (0, LENGTH, 2 * LENGTH))
    triage(before)
    starts = [run * 97 % (len(text) - LENGTH) for run in range(RUNS)]
    return _spread([_timed((*before, text[start : start + LENGTH])) for start in starts])


# ---------------------------------------------------------------- the table


def show(title: str, rows: dict[str, dict[str, float | int]]) -> None:
    print(f"\n{title}")
    for name, found in rows.items():
        interval = f"[{found['low']:.2%}, {found['high']:.2%}]"
        print(f"  {name:44} {found['count']:>4} of {found['n']:<4} {found['rate']:>8.2%}  {interval}")


def measured(folder: Path) -> dict[str, Any]:
    """Print and return everything about one folder of sets."""
    result: dict[str, Any] = {}
    for how, judge in (("rules and model", triage), ("rules alone, every list an alert", by_rules)):
        result[how] = figures(folder, judge)
        show(f"{folder.name}, {how}", result[how])
    result["alarms by group"] = by_group(folder)
    print("  " + "  ".join(f"{group} {found}" for group, found in result["alarms by group"].items()))
    result["rewordings"] = downgrades(folder)
    for kind, count in result["rewordings"].items():
        print(f"  {kind:40} {count['downgrades']:>3} downgrades of {count['reworded']}")
    total = Counter[str]()
    for count in result["rewordings"].values():
        total.update(count)
    result["rewordings, all"] = rate(total["downgrades"], total["reworded"])
    show(f"{folder.name}, rewordings", {"downgrades": result["rewordings, all"]})
    return result


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--sets", type=Path, help="a folder with emergency.jsonl, negative.jsonl and ordinary.jsonl to measure instead"
    )
    folder = asked.parse_args().sets
    folders = (folder,) if folder else FOLDERS
    as_written, long = milliseconds_as_written(folders), milliseconds(folders)
    times = {"time_ms_as_written": as_written, "time_ms_2000_characters": long}
    results = times | {folder.name: measured(folder) for folder in folders}
    print(f"\nCPU milliseconds, questions as written: {as_written}; of {LENGTH} characters: {long}")
    common.save(f"triage_{folder.name}" if folder else "triage", results)


if __name__ == "__main__":
    main()
