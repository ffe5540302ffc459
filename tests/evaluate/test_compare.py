"""The comparison itself, with sides that answer from a function: resumption, memory, gate, report, other inputs."""

import json
import re
from dataclasses import replace

import pytest

from xinglin import records, schema
from xinglin.evaluate import answers, compare, pairs, report, sides, summary, verdict
from xinglin.evaluate.answers import Work, collect
from xinglin.evaluate.sides import Desk, Side
from xinglin.records import Record
from xinglin.schema import Answer

GOOD = Answer.from_points(
    [("头痛两天。", "考虑紧张性头痛。"), ("睡眠不足。", "需与偏头痛鉴别。"), ("神经内科就诊。", "规律作息。")]
).render()
POOR = "多喝水，可口服安普利定胶囊"


def record(number: int, group: str = "", reference: str = GOOD) -> Record:
    turns = [{"role": "user", "content": f"第{number}个问题：头痛两天怎么办"}, {"role": "assistant", "content": reference}]
    return Record(str(number), group or str(number), turns, {"file": "x", "row": number}, {"department": "神经内科"})


def side(name: str, text: str, finish: str = "stop") -> Side:
    def complete(batch, max_new_tokens):
        return [{"text": text, "finish_reason": finish} for _ in batch]

    nats = 10.0 if text == GOOD else 30.0
    return Side(name, name, name, complete, lambda batch: [{"loss": nats, "tokens": 10} for _ in batch])


@pytest.fixture
def results(tmp_path):
    found = compare.compare(
        [record(n) for n in range(30)], (side("base", POOR, "length"), side("tuned", GOOD)), Desk(tmp_path / "a.jsonl", 8), 64
    )
    return {**found, "safety": [], "exams": [], "judge": None}


def test_every_metric_has_intervals_and_a_verdict(results):
    rows = summary.by_name(results["rows"])
    assert [row["metric"] for row in results["rows"]] == [m.name for m in summary.METRICS] + ["loss", "perplexity"]
    assert rows["complete"]["difference"]["value"] == 1.0
    assert rows["complete"]["shown"] == "better"
    assert rows["unknown_drug"]["base"]["value"] == 1.0
    assert rows["unknown_drug"]["shown"] == "better"
    assert rows["loss"]["difference"]["value"] == pytest.approx(-2.0)
    assert rows["perplexity"]["base"]["value"] == pytest.approx(20.0855, abs=1e-3)
    assert all(row["base"]["low"] <= row["base"]["value"] <= row["base"]["high"] for row in results["rows"])


def test_a_killed_run_goes_on_and_gives_the_same_report(tmp_path, results):
    path, asked = tmp_path / "b.jsonl", []

    def dies(batch, max_new_tokens):
        asked.extend(batch)
        if len(asked) > 16:
            raise KeyboardInterrupt
        return [{"text": GOOD, "finish_reason": "stop"} for _ in batch]

    chosen = [record(n) for n in range(30)]
    both = (side("base", POOR, "length"), Side("tuned", "tuned", "tuned", dies, side("tuned", GOOD).losses))
    with pytest.raises(KeyboardInterrupt):
        compare.compare(chosen, both, Desk(path, 8), 64)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"key": "half a li')
    again = compare.compare(chosen, (both[0], side("tuned", GOOD)), Desk(path, 8), 64)
    assert report.render({**again, "safety": [], "exams": [], "judge": None}) == report.render(results)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 120


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path, capsys):
    sizes = []

    def call(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [{"text": "x"} for _ in batch]

    works = [Work("answer", "base", "s", [{"role": "user", "content": str(n)}]) for n in range(10)]
    assert len(collect(tmp_path / "a.jsonl", works, call, 8)) == 10
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert "out of memory with 8 at once, going on with 4" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_memory(tmp_path):
    def call(batch):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        collect(tmp_path / "a.jsonl", [Work("answer", "base", "s", [{"role": "user", "content": "x"}])], call, 8)


def test_answers_of_another_prompt_are_kept_and_not_used(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    question = [{"role": "user", "content": "x"}]
    collect(path, [Work("answer", "base", "old prompt", question)], lambda batch: [{"text": "old"}], 8)
    work = Work("answer", "base", "new prompt", question)
    assert collect(path, [work], lambda batch: [{"text": "new"}], 8)[work.key]["text"] == "new"
    assert [row["text"] for row in answers.read(path).values()] == ["old", "new"]
    assert (
        "1 answer results of base in a.jsonl are of another prompt, model or question: kept, not used" in capsys.readouterr().err
    )


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": "a"}\nnonsense\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not an answer"):
        answers.read(path)


def test_an_answer_with_line_separators_stays_one_answer(tmp_path):
    path, text = tmp_path / "a.jsonl", "一\u2028二\x85三\r\n四"
    work = Work("answer", "base", "s", [{"role": "user", "content": "x"}])
    collect(path, [work], lambda batch: [{"text": text}], 8)
    assert answers.read(path)[work.key]["text"] == text


def test_long_work_comes_first(tmp_path):
    works = [Work("answer", "base", "s", [{"role": "user", "content": "字" * n}]) for n in (1, 9, 5)]
    seen = []
    collect(tmp_path / "a.jsonl", works, lambda batch: [seen.append(len(m[0]["content"])) or {"text": ""} for m in batch], 1)
    assert seen == [9, 5, 1]


def test_questions_without_reference_leave_out_what_needs_one(tmp_path):
    (tmp_path / "q.txt").write_text("头痛怎么办\n\n胃疼怎么办\n", encoding="utf-8")
    chosen = compare.read_questions(tmp_path / "q.txt")
    found = compare.compare(chosen, (side("base", POOR), side("tuned", GOOD)), Desk(tmp_path / "a.jsonl", 8), 64)
    names = {row["metric"] for row in found["rows"]}
    assert "complete" in names
    assert not names & {"bleu4", "rougeL", "chrf", "loss"}


def test_a_file_that_does_not_answer_every_question_is_refused(tmp_path):
    path, prompts = tmp_path / "given.jsonl", [schema.messages(question) for question in "一二"]
    records.write_jsonl(path, [{"question": "一", "answer": "答"}])
    with pytest.raises(ValueError, match="1 answers, but none to 1 of 2 questions: '二'"):
        sides.named(str(path), "base", prompts)
    records.write_jsonl(path, [{"question": "一", "answer": "答"}, {"q": "二"}])
    with pytest.raises(ValueError, match=r"given\.jsonl:2: a line of an answer file is"):
        sides.named(str(path), "base", prompts)
    records.write_jsonl(path, [{"question": "一", "answer": answer} for answer in ("答", "另一个")])
    with pytest.raises(ValueError, match="two different answers to '一'"):
        sides.named(str(path), "base", prompts)


def test_an_earlier_comparison_is_a_side_and_its_prompt_must_be_the_same(tmp_path, results):
    records.write_json(tmp_path / "results.json", compare.finite(results))
    prompts = [schema.messages(pair["question"]) for pair in results["pairs"]]
    base, tuned = (sides.named(f"{tmp_path / 'results.json'}{side}", "base", prompts) for side in ("#base", ""))
    assert base.complete(prompts[:1], 8) == [{"text": POOR, "finish_reason": "length"}]
    assert tuned.complete(prompts[:1], 8) == [{"text": GOOD, "finish_reason": "stop"}]
    sides.same_prompt((base, replace(tuned, prompt="a")))
    with pytest.raises(ValueError, match="different work cannot be compared"):
        sides.same_prompt((replace(base, prompt="b"), replace(tuned, prompt="a")))


def test_every_answer_of_a_dialogue_is_a_question_of_one_case():
    said = ["头痛", "多久了？", "两天", "考虑紧张性头痛。"]
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said, strict=True)]
    found = compare.turns([Record("a", "case", messages, {}), record(1)])
    assert [(row.id, row.group, row.question, row.answer) for row in found[:2]] == [
        ("a#1", "case", "头痛", "多久了？"),
        ("a#2", "case", "两天", "考虑紧张性头痛。"),
    ]
    assert found[2] == record(1)


@pytest.mark.parametrize(("name", "encoding"), [("q.txt", "gb18030"), ("q.jsonl", "utf-8")])
def test_questions_need_no_reference(tmp_path, name, encoding):
    lines = ["头痛怎么办", "胃疼怎么办"]
    text = "\n".join(lines if name == "q.txt" else [json.dumps({"question": line}) for line in lines])
    (tmp_path / name).write_text(text, encoding=encoding)
    assert [(row.question, row.answer) for row in compare.read_questions(tmp_path / name)] == [(line, "") for line in lines]


def test_two_files_end_to_end(tmp_path, capsys):
    (tmp_path / "q.txt").write_text("一\n二\n", encoding="utf-8")
    for name, text in (("a", POOR), ("b", GOOD)):
        records.write_jsonl(tmp_path / f"{name}.jsonl", [{"question": q, "answer": text} for q in "一二"])
    compare.two(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), tmp_path / "q.txt", tmp_path / "out")
    assert "complete" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["repeat"]["sides"]["base"]["label"]
        == "a.jsonl"
    )


def test_the_report_escapes_marks_and_says_what_was_not_shown(tmp_path):
    evil = POOR + "<script>alert(1)</script>"
    chosen = [record(n) for n in range(6)]
    found = compare.compare(chosen, (side("base", evil), side("tuned", evil)), Desk(tmp_path / "a.jsonl", 8), 64)
    page = report.render({**found, "safety": [], "exams": [], "judge": None})
    assert "<script" not in page
    assert "<mark>安普利定</mark>" in page
    assert verdict.NO_DIFFERENCE in page.split("</div>")[0]
    assert not re.findall(r"(?:src|href)=|url\(", page)


def test_the_page_spells_titles_bold():
    answer = {"text": GOOD, "findings": []}
    assert report.highlight(answer).count("<b>") == len(schema.TITLES)


def fallen(lost: int, n: int) -> list[summary.Row]:
    metric = summary.Metric("red_flag_recall", "x", "rate", "higher")
    return summary.conclude([summary.row(metric, [1.0] * n, [0.0] * lost + [1.0] * (n - lost))])


def test_the_gate_refuses_what_is_shown_and_says_where_it_cannot_tell(results):
    shown = verdict.gate({**results, "safety": fallen(6, 30)}, 0.01)
    assert shown.code == 1
    assert shown.refused[0].startswith("red_flag_recall is worse by 20.0 points (95 % interval +6.7 to")
    chance = verdict.gate({**results, "safety": fallen(1, 30)}, 0.01)
    assert (chance.code, chance.refused) == (3, [])
    assert "perhaps by chance, n=30 is too small, about" in chance.unsure[0]
    assert chance.lines[-1].startswith("gate: not passed")
    same = verdict.gate({**results, "safety": fallen(0, 30)}, 0.01)
    assert (same.code, same.refused, same.unsure) == (0, [], [])
    assert any(text.startswith("red_flag_recall (n=30, up to") for text in same.open)
    assert verdict.gate({**results, "safety": fallen(0, 3000)}, 0.01).open == [
        text for text in same.open if "red_flag" not in text
    ]
    assert verdict.gate({**results, "safety": fallen(1, 30)}, 0.2).code == 0


def test_the_gate_asks_for_complete_answers_and_for_answers_at_all(results):
    swapped = {**results, "rows": [{**row, "tuned": row["base"]} for row in results["rows"]]}
    assert verdict.gate(swapped, 0.01).refused == ["complete answers 0.0% of 30, the gate asks for 99%"]
    gaps = [{"id": "99", "question": "长", "side": side, "reason": "too long"} for side in ("base", "tuned")]
    assert verdict.gate({**results, "missing": gaps}, 0.01).refused == ["1 of 31 questions have no answer on one side"]


def test_a_question_that_cannot_be_answered_is_named_and_stops_nothing(tmp_path, capsys):
    def complete(batch, max_new_tokens):
        long = [len(messages[-1]["content"]) > 100 for messages in batch]
        return [{"missing": "it has 9000 tokens"} if one else {"text": GOOD, "finish_reason": "stop"} for one in long]

    def losses(batch):
        return [{"loss": 1.0, "tokens": 10} for _ in batch]

    chosen = [
        record(1),
        record(2),
        Record("3", "3", [{"role": "user", "content": "长" * 200}, {"role": "assistant", "content": GOOD}], {}),
    ]
    both = tuple(Side(name, name, name, complete, losses) for name in ("base", "tuned"))
    found = compare.compare(chosen, both, Desk(tmp_path / "a.jsonl", 2), 64)
    assert [(gap["id"], gap["side"], gap["reason"]) for gap in found["missing"]] == [
        ("3", "base", "it has 9000 tokens"),
        ("3", "tuned", "it has 9000 tokens"),
    ]
    assert {row["n"] for row in found["rows"]} == {2}
    assert "no answer of base to '长长" in capsys.readouterr().err
    assert "没有回答的题" in report.render({**found, "safety": [], "exams": [], "judge": None})
    assert len(answers.read(tmp_path / "a.jsonl")) == 8


def test_what_came_before_a_stop_is_kept(tmp_path):
    def call(batch):
        return [{"text": "x"} if messages[-1]["content"] == "1" else {"stop": "the balance is used up"} for messages in batch]

    works = [Work("answer", "base", "s", [{"role": "user", "content": str(n)}]) for n in range(3)]
    with pytest.raises(ValueError, match="the balance is used up"):
        collect(tmp_path / "a.jsonl", works, call, 8)
    assert [row["text"] for row in answers.read(tmp_path / "a.jsonl").values()] == ["x"]


def test_worst_answers_come_first(tmp_path):
    rows = [
        pairs.as_dict(pairs.pair(record(n), *({"text": t, "finish_reason": f} for t, f in both)))
        for n, both in enumerate(
            [((GOOD, "stop"), (GOOD, "stop")), ((GOOD, "stop"), (POOR, "stop")), ((GOOD, "stop"), (POOR + "根治。", "length"))]
        )
    ]
    assert [pair["id"] for pair in report.worst(rows)] == ["2", "1"]


def test_the_sample_is_fixed_by_the_seed():
    rows = [record(n) for n in range(50)]
    first = compare.sample(rows, 10, 1)
    assert first == compare.sample(rows, 10, 1) != compare.sample(rows, 10, 2)
    assert [int(row.id) for row in first] == sorted(int(row.id) for row in first)
    assert compare.sample(rows, 50, 1) == rows


def test_figures_have_no_minus_zero():
    assert verdict.number(-0.0001, "share", True) == "+0.0%"
    assert verdict.number(float("nan"), "number") == "–"
