"""Trouble while rewriting: a judge that stumbles, refusals in a row, odd texts, an input that changes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mock_endpoint import Mock, faithful
from test_rewrite import PLAIN, PRICES, corpus, recipe, run, states

from xinglin import llm, records
from xinglin.data import journal as journals
from xinglin.data import rewrite, rewrite_job, rewrite_report, sending
from xinglin.safety.faithfulness import Finding

FAITHFUL = '{"faithful": true, "problems": []}'


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BACKOFF", 0.01)
    monkeypatch.delenv("XINGLIN_LLM_KEY", raising=False)


# ---------------------------------------------------------------- a judge that stumbles


def test_a_judge_that_stumbles_is_waited_for(tmp_path: Path) -> None:
    folder = corpus(tmp_path, PLAIN)
    with Mock(script=lambda question, source, times: faithful(source) if times == 1 else FAITHFUL if times > 5 else "500") as mock:
        run(tmp_path, mock, judge="n")
    assert [row.meta["rewrite_judge"] for row in records.load(folder / "records.jsonl")] == ["faithful"]
    assert mock.endpoint.requests == 6


def test_no_row_is_accepted_unjudged_because_the_judge_is_down(tmp_path: Path) -> None:
    corpus(tmp_path, PLAIN)
    with Mock(script=lambda question, source, times: faithful(source) if times % 9 == 1 else "500") as mock:
        with pytest.raises(ValueError, match=r"1 of 1 rows unfinished \(1 failed\)"):
            run(tmp_path, mock, judge="n")
    assert mock.endpoint.requests == 2 * (1 + 8)


def test_a_row_whose_judge_stops_the_run_stays_pending_and_its_money_is_booked(tmp_path: Path) -> None:
    corpus(tmp_path, PLAIN)
    with Mock(script=lambda question, source, times: faithful(source) if times == 1 else "402") as mock:
        with pytest.raises(ValueError, match="balance is used up"):
            run(tmp_path, mock, judge="n")
    assert states(tmp_path) == {"pending": 1}
    found = journals.read(tmp_path / "t" / "2-rewrite" / "journal.sqlite")
    assert found.completion_tokens == mock.endpoint.charged["completion"] > 0
