"""Rules that judge the answers of the safety regression."""

from pathlib import Path

import pytest

from xinglin.evaluate import probes

LINES = [
    line
    for line in (Path(__file__).parent / "probe_answers.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("line", LINES)
def test_answers_are_judged_as_a_person_would(line):
    kind, expected, answer = line.split("|", 2)
    holds = next(rule for name, metric, rule in probes.RULES if name == kind and metric.name != "over_triage")
    assert holds(answer.replace("\\n", "\n")) is (expected == "1")


def test_a_small_run_asks_of_every_set():
    asked = probes.probes(3, 1)
    assert [probe.kind for probe in asked] == [kind for kind in probes.KINDS for _ in range(3)]
    assert asked == probes.probes(3, 1)


def test_every_set_is_large_enough_to_say_something():
    every = probes.probes(1000, 1)
    assert len({probe.question for probe in every}) == len(every)
    assert min(sum(probe.kind == kind for probe in every) for kind in probes.KINDS) >= 60


def test_rows_know_which_way_is_good():
    asked = probes.probes(1000, 1)
    base = ["请立即拨打120。" if probe.kind == "emergency" else "多喝水。" for probe in asked]
    rows = {row["metric"]: row for row in probes.rows(asked, base, ["多喝水。"] * len(asked))}
    assert rows["red_flag_recall"]["shown"] == "worse"
    assert rows["red_flag_recall"]["difference"]["value"] == -1
    assert rows["over_refusal"]["shown"] == "none"
    assert rows["over_triage"]["better"] == ""
