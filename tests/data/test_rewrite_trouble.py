"""Trouble while rewriting: a judge that stumbles, refusals in a row, odd texts, an input that changes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mock_endpoint import Mock, faithful
from test_rewrite import PLAIN, corpus, recipe, run, states

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
    with Mock(
        script=lambda question, source, times: faithful(source) if times == 1 else FAITHFUL if times > 5 else "500"
    ) as mock:
        run(tmp_path, mock, judge="n")
    assert [row.meta["rewrite_judge"] for row in records.load(folder / "records.jsonl")] == ["faithful"]
    assert mock.endpoint.requests == 6


def test_no_row_is_accepted_unjudged_because_the_judge_is_down(tmp_path: Path) -> None:
    corpus(tmp_path, PLAIN)

    def script(question: str, source: str, times: int) -> str:
        return faithful(source) if times % 9 == 1 else "500"

    with Mock(script=script) as mock, pytest.raises(ValueError, match=r"1 of 1 rows unfinished \(1 failed\)"):
        run(tmp_path, mock, judge="n")
    assert mock.endpoint.requests == 1 + 8


def test_a_row_whose_judge_stops_the_run_stays_pending_and_its_money_is_booked(tmp_path: Path) -> None:
    corpus(tmp_path, PLAIN)

    def script(question: str, source: str, times: int) -> str:
        return faithful(source) if times == 1 else "402"

    with Mock(script=script) as mock, pytest.raises(ValueError, match="balance is used up"):
        run(tmp_path, mock, judge="n")
    assert states(tmp_path) == {"pending": 1}
    found = journals.read(tmp_path / "t" / "2-rewrite" / "journal.sqlite")
    assert found.completion_tokens == mock.endpoint.charged["completion"] > 0


JUDGES = [
    ('{"faithful": "true"}', []),
    ('例如{"faithful": true}。结论：{"faithful": false, "problems": "漏了就医建议"}', ["漏了就医建议"]),
    ('{"faithful": false}', ["判定为不忠实"]),
    ("很好", None),
    ('{"faithful": null, "problems": []}', None),
]


@pytest.mark.parametrize(("text", "problems"), JUDGES)
def test_a_verdict_is_the_last_object_in_any_usual_form(text: str, problems: list[str] | None) -> None:
    assert rewrite_job.read_fidelity(text) == problems


def test_what_the_judge_objected_to_is_said_and_stands_beside_what_the_rules_find(tmp_path: Path) -> None:
    folder = corpus(tmp_path, PLAIN)
    said = '{"faithful": false, "problems": ["漏了就医建议"]}'
    with Mock(script=lambda question, source, times: faithful(source) if times == 1 else said) as mock:
        run(tmp_path, mock, judge="n", on_finding="reject")
    assert json.loads((folder / "rejected.jsonl").read_text(encoding="utf-8"))["reason"] == "unfaithful: judge: 漏了就医建议"
    assert "漏了就医建议" in rewrite_report._listed(rewrite_job.dumps([Finding("judge", "", "漏了就医建议")]))
    job = rewrite_job.prepare(recipe(tmp_path, base_url="http://127.0.0.1:9/v1", model="m", on_finding="reject"))
    record = next(records.iterate(tmp_path / "t" / "1-clean" / "records.jsonl"))
    stored = rewrite_job.dumps([Finding("judge", "", "漏了就医建议")])
    entry = journals.Entry("id1", "r", "rejected", reply=faithful(PLAIN + "可口服布洛芬0.3g。"), findings=stored)
    kinds = [kind for kind, _, _ in json.loads(rewrite_job.judge_again(job, record, entry).findings)]
    assert "new drug" in kinds
    assert kinds[-1] == "judge"


# ---------------------------------------------------------------- refusals, odd texts, money, room


def test_refusals_in_a_row_that_stop_the_run_do_not_stay_rejected(tmp_path: Path) -> None:
    corpus(tmp_path, *[PLAIN] * 30)
    with Mock(script=lambda *_: "400") as mock, pytest.raises(ValueError, match="20 rows in a row failed"):
        run(tmp_path, mock, concurrency=2)
    assert "rejected" not in states(tmp_path)
    with Mock(script=lambda question, source, times: "400" if "3天" in question else faithful(source)) as mock:
        run(tmp_path, mock, concurrency=2)
    assert states(tmp_path) == {"accepted": 27, "rejected": 3}  # 3, 13 and 23 days


def test_a_text_a_rule_trips_over_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*_: str) -> list[Finding]:
        raise OverflowError("too large")

    monkeypatch.setattr(rewrite_job.faithfulness, "check", check)
    folder = corpus(tmp_path, PLAIN)
    with Mock() as mock:
        run(tmp_path, mock)
    assert "the check failed: OverflowError: too large" in (folder / "rejected.jsonl").read_text(encoding="utf-8")
    assert mock.endpoint.requests == 3


def test_an_answer_without_counts_is_booked_at_its_upper_bound(tmp_path: Path) -> None:
    corpus(tmp_path, *[PLAIN] * 20)
    with Mock() as mock:
        mock.endpoint._usage = lambda *_, **__: {}
        with pytest.raises(ValueError, match=r"rewrite\.budget=0\.05"):
            run(tmp_path, mock, budget=0.05)
    found = journals.read(tmp_path / "t" / "2-rewrite" / "journal.sqlite")
    assert 0.03 < found.lost_price <= 0.05


def test_an_empty_answer_cut_by_length_is_cut_and_a_pause_has_a_longest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = rewrite_job.prepare(recipe(tmp_path, base_url="http://127.0.0.1:9/v1", model="m"))
    reply = llm.Reply("retry", reason="empty answer", finish="length", usage=llm.Usage(1, 0, 1))
    assert rewrite_job.judge_reply(job, "", PLAIN, reply).kind == "cut"
    monkeypatch.setattr(sending, "PAUSE", 0.1)
    corpus(tmp_path, PLAIN)
    monkeypatch.setattr(llm, "_retry_after", lambda _: 3600.0)
    with Mock(script=lambda question, source, times: "500" if times == 1 else faithful(source)) as mock:
        run(tmp_path, mock)
    assert states(tmp_path) == {"accepted": 1}


def test_a_long_row_gets_more_room(tmp_path: Path) -> None:
    assert rewrite_job.room(PLAIN) == rewrite_job.ROOM
    assert rewrite_job.room("痛" * 10_000) == 8_620


# ---------------------------------------------------------------- an input that changes


def test_an_input_made_anew_meanwhile_is_one_line(tmp_path: Path) -> None:
    folder = corpus(tmp_path, PLAIN, PLAIN)

    def script(question: str, source: str, times: int) -> str:
        corpus(tmp_path, PLAIN + "多喝水。", PLAIN, PLAIN)
        return faithful(source)

    with Mock(script=script) as mock, pytest.raises(ValueError, match="changed while it was being rewritten"):
        run(tmp_path, mock)
    assert not (folder / "records.jsonl").exists()
    with Mock() as mock:
        run(tmp_path, mock)
    assert len(records.load(folder / "records.jsonl")) == 3


def test_a_row_the_journal_lacks_is_one_line(tmp_path: Path) -> None:
    folder = corpus(tmp_path, PLAIN)
    with Mock() as mock:
        run(tmp_path, mock)
    source = tmp_path / "t" / "1-clean" / "records.jsonl"
    job = rewrite_job.prepare(recipe(tmp_path, base_url="http://127.0.0.1:9/v1", model="m"))
    records.write_jsonl(source, [replace(records.load(source)[0], id="other")])
    with pytest.raises(ValueError, match="changed while it was being rewritten"):
        rewrite._export(job, source, folder)
