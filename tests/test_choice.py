"""Reading a choice out of free text: the hand-made table, one line an output."""

from pathlib import Path

import pytest

from xinglin.choice import extract_choice

LINES = [
    line for line in (Path(__file__).parent / "choices.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]


def test_the_table_is_long_enough():
    assert len(LINES) >= 200
    assert len(set(LINES)) == len(LINES)


@pytest.mark.parametrize("line", LINES)
def test_choice(line):
    letters, expected, output = line.split("|", 2)
    assert (extract_choice(output.replace("\\n", "\n"), letters) or "-") == expected
