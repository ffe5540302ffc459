"""A judge that returns prose is missing, not zero; both orders must agree."""

import json

import pytest

from xinglin.evaluate import halt, judge
from xinglin.evaluate.exams import Exam, Question

MARKS = json.dumps(dict.fromkeys(judge.MARKS, 4), ensure_ascii=False)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ('{"better": "2"}', '{"better": "1"}', "tuned"),
        ('{"better": "1"}', '```json\n{"better": "2"}\n```', "base"),
        ('{"better": "1"}', '{"better": "1"}', "tie"),
        ('{"better": "tie"}', '{"better": "1"}', "tie"),
        ("第一个更好", '{"better": "1"}', None),
        ('{"better": "3"}', '{"better": "1"}', None),
        ('{"better": ', "", None),
    ],
)
def test_winner(first, second, expected):
    assert judge.winner(first, second) == expected


def test_marks_outside_the_scale_are_missing():
    assert judge.marks(f"评分如下：{MARKS}") == [4.0] * 4
    assert judge.marks(MARKS.replace("4", "9")) is None
    assert judge.marks("都很好") is None


def pair(number: int) -> dict[str, object]:
    return {"id": str(number), "question": "头痛", "reference": "", "base": {"text": "甲"}, "tuned": {"text": "乙"}}


def test_prose_is_missing_and_agreement_is_printed():
    def ask(prompts):
        texts = []
        for number, messages in enumerate(prompts):
            content = messages[-1]["content"]
            if number == 0:
                texts.append("两个回答都不错。")
            elif "<answer1>" in content:
                texts.append(json.dumps({"better": "1" if "<answer1>\n乙" in content else "2"}))
            else:
                texts.append(MARKS)
        return texts

    found = judge.review([pair(n) for n in range(5)], ask, "评审", {"1": "tuned", "2": "base"})
    assert found["winners"] == [None, "tuned", "tuned", "tuned", "tuned"]
    assert {row["n"] for row in found["rows"]} == {4}
    assert "1 对、1 组评分无法读出" in found["lines"][0]
    assert "与 2 条人工标注一致 50%" in found["lines"][1]


def test_only_prose_gives_no_rows():
    found = judge.review([pair(0)], lambda prompts: ["不好说"] * len(prompts), "评审", {})
    assert found["rows"] == []


def test_labels_are_checked(tmp_path):
    for line in ('{"id": "1", "better": "good"}', '{"better": "tie"}', "甲更好", "[]"):
        (tmp_path / "labels.jsonl").write_text(f'{{"id": 1, "better": "tie"}}\n{line}\n', encoding="utf-8")
        with pytest.raises(ValueError, match=r"labels\.jsonl:2: .* is no label"):
            judge.read_labels(tmp_path / "labels.jsonl")
    assert judge.read_labels(tmp_path / "none.jsonl") == {}


def test_hallucination_test_is_made_by_rule():
    questions = [Question(f"第{n}题", {"A": "甲", "B": "乙", "C": "丙"}, "B", "内科") for n in range(20)]
    made = halt.build(Exam("x", questions, []), 3, 5)
    assert made == halt.build(Exam("x", questions, []), 3, 5)
    assert [q.subject for q in made.questions] == ["错误提示"] * 5 + ["均不正确"] * 5 + ["虚构药物"] * 5
    assert all(q.options[q.answer] == halt.NONE_FITS for q in made.questions[5:10])
    assert all(q.options[q.answer] == halt.NO_SUCH_DRUG for q in made.questions[10:])
    assert all("答案是 B" not in q.text for q in made.questions[:5])


def test_hallucination_test_needs_three_options():
    two = Exam("x", [Question("题", {"A": "甲", "B": "乙"}, "A", "内科")], [])
    with pytest.raises(ValueError, match="three options or more"):
        halt.build(two, 1, 5)
