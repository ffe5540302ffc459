"""The journal: nobody waits for ever, every page is read once, every path can be read."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from xinglin.data import journal as journals
from xinglin.data.journal import ACCEPTED, FAILED, PENDING, REJECTED, Entry, Journal


def entries(count: int, **values: str | float) -> list[Entry]:
    return [Entry(f"{number:05}", "r", **values) for number in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [Entry("a", "r", attempts=10**30), Entry("a", "r", reply="\ud800")])
def test_a_row_that_cannot_be_written_leaves_nobody_waiting(tmp_path: Path, bad: Entry) -> None:
    journal = Journal(tmp_path / "j", "t")

    async def go() -> None:
        for _ in range(2):
            with pytest.raises((OverflowError, UnicodeEncodeError)):
                await asyncio.wait_for(journal.put(bad), 5)
        await asyncio.wait_for(journal.put(Entry("b", "r")), 5)
        assert journal._flushing is None

    asyncio.run(go())
    with pytest.raises((OverflowError, UnicodeEncodeError)):
        journal.write([bad])
    journal.write([Entry("c", "r")])
    journal.close()
    assert journals.read(tmp_path / "j").rows == 2


def test_a_journal_is_read_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "a#b?c%41 d"
    folder.mkdir()
    journal = Journal(folder / "j", "t")
    journal.write([Entry("a", "r")])
    journal.close()
    assert journals.read(folder / "j").rows == 1


def test_a_row_that_fails_in_this_run_waits_for_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "t")
    journal.plan([Entry("a", "r"), Entry("b", "r", state=FAILED, updated=1.0)])
    rows = journal.unfinished()
    first = next(rows)
    assert (first.id, first.state) == ("a", PENDING)
    journal.write([replace(first, state=FAILED, updated=journals.time.time())])
    assert [row.id for row in rows] == ["b"]
    assert [row.id for row in journal.unfinished()] == ["a", "b"]
    journal.close()


def test_every_outdated_row_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j", "t")
    rows = [replace(row, state=REJECTED if int(row.id) % 3 else ACCEPTED) for row in entries(1000, reply="好", policy="old")]
    journal.write(
        [*rows, Entry("x", "r", state=ACCEPTED, policy="old"), Entry("y", "r", state=ACCEPTED, reply="好", policy="new")]
    )
    starts: list[tuple[str, str]] = []
    page = journal._page

    def watched(state: str, after: tuple[str, str], also: str, value: str | float) -> list[Entry]:
        starts.append((state, after[0]))
        return page(state, after, also, value)

    monkeypatch.setattr(journal, "_page", watched)
    named: list[str] = []
    while found := journal.outdated("new"):
        named += [row.id for row in found]
        journal.write([replace(row, policy="new") for row in found])
    assert sorted(named) == [row.id for row in rows]
    assert len(set(starts)) >= 7  # every page starts where the last one ended, none at the beginning again
    assert [row.id for row in journal.outdated("newer")][:2] == ["00000", "00003"]
    journal.close()


def test_a_failing_disk_is_no_reason_to_move_the_journal_away() -> None:
    said = str(journals._explained(Path("j"), sqlite3.OperationalError("disk I/O error")))
    assert "finished rows are kept" in said
    assert "move" not in said
