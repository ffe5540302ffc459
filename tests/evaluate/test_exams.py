"""Exam files as they are published, made up here by hand, and scoring without a guess."""

import json

import pytest

from xinglin.evaluate import exams


@pytest.fixture
def published(tmp_path):
    """One question each, in the shapes of CMExam, CMB, MedQA-zh, CMMLU and C-Eval."""
    (tmp_path / "cmexam.json").write_text(
        json.dumps([{"Question": "题一", "Options": "A 甲\\nB 乙\\nC 丙", "Answer": "BC", "Explanation": "略"}]), encoding="utf-8"
    )
    cmb = {
        "exam_type": "医师考试",
        "exam_subject": "内科",
        "question": "题二",
        "answer": "A",
        "option": {"A": "甲", "B": "乙", "E": ""},
    }
    (tmp_path / "cmb.json").write_text(json.dumps([cmb]), encoding="utf-8")
    medqa = {"question": "题三", "options": {"A": "甲", "B": "乙"}, "answer": "乙", "answer_idx": "B", "meta_info": "卷一"}
    (tmp_path / "medqa.jsonl").write_text(json.dumps(medqa) + "\n", encoding="utf-8")
    (tmp_path / "anatomy.csv").write_bytes(",Question,A,B,C,D,Answer\n0,题四,甲,乙,丙,丁,D\n".encode("gb18030"))
    (tmp_path / "physician_val.csv").write_bytes("id,question,A,B,C,D,answer\r\n0,题五,甲,乙,丙,丁,A\r\n".encode())
    return tmp_path


def test_every_published_shape_is_read(published):
    found = {
        question.text: (question.answer, dict(question.options), question.subject) for question in exams.read(published).questions
    }
    assert found == {
        "题一": ("BC", {"A": "甲", "B": "乙", "C": "丙"}, "cmexam"),
        "题二": ("A", {"A": "甲", "B": "乙"}, "内科"),
        "题三": ("B", {"A": "甲", "B": "乙"}, "卷一"),
        "题四": ("D", {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}, "anatomy"),
        "题五": ("A", {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}, "physician"),
    }


def test_rows_without_options_or_answer_are_left_out_and_counted(tmp_path):
    path = tmp_path / "exam.csv"
    path.write_text("question,A,B,answer\n甲题,一,二,A\n乙题,一,,A\n丙题,一,二,nan\n丁题,一,二,E\n", encoding="utf-8")
    exam = exams.read(path)
    assert [question.text for question in exam.questions] == ["甲题"]
    assert exam.left_out == ["1 题未用：缺少选项", "2 题未用：没有答案或答案不在选项中"]


def test_a_file_without_questions_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text("[{}]", encoding="utf-8")
    with pytest.raises(ValueError, match="no usable question"):
        exams.read(tmp_path)
    with pytest.raises(ValueError, match="no file or folder"):
        exams.read(tmp_path / "missing.csv")


def test_unparseable_is_wrong_and_counted():
    questions = [exams.Question(f"第{i}题", {"A": "甲", "B": "乙"}, "A", "内科") for i in range(4)]
    found = exams.score(exams.Exam("x", questions, []), "chat", ["A", None, None, "B"], ["A", "A", "A", "B"], set())
    assert found["row"]["base"]["value"] == 0.25
    assert found["row"]["tuned"]["value"] == 0.75
    assert found["unparseable"]["base"]["value"] == 0.5
    assert found["unparseable"]["tuned"]["value"] == 0.0


def test_contamination_needs_a_long_run_or_a_whole_question():
    long = "患者男性四十岁反复上腹部疼痛三年余加重一周伴黑便两天血红蛋白下降"
    questions = [
        exams.Question(text, {"A": "甲", "B": "乙"}, "A", "x")
        for text in (long, "慢性胃炎最常见的病因", "另一道没有出现过的题目")
    ]
    assert exams.contaminated(questions, [f"问：{long[:31]}。", "慢性胃炎，最常见的病因是什么"]) == {0, 1}
    assert exams.contaminated(questions, [long[:20], "慢性胃炎常见"]) == set()


def test_likelihood_looks_at_the_letters_of_the_question_only():
    question = exams.Question("题", {"A": "甲", "B": "乙"}, "A", "x")
    assert exams.most_likely(question, [-2.0, -1.0, -0.1, -5, -5, -5, -5, -5]) == "B"


def test_real_files(shared):
    sizes = {name: len(exams.read(shared / "data" / name).questions) for name in ("cmexam/val.json", "cmmlu/test", "ceval/val")}
    assert sizes["cmexam/val.json"] == 6810  # one of 6,811 has the answer "nan"
    assert sizes["cmmlu/test"] > 2000
    assert sizes["ceval/val"] == 90
