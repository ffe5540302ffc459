"""Exam files as they are published, made up here by hand, and scoring without a guess."""

import json

import pytest

from xinglin.evaluate import exams, harness
from xinglin.evaluate.sides import Desk, Side


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


def test_unparseable_is_wrong_and_counted(tmp_path):
    path = tmp_path / "exam.csv"
    path.write_text("question,A,B,answer\n" + "".join(f"第{n}道题目是什么,一,二,A\n" for n in range(4)), encoding="utf-8")
    texts = {"base": ["A", "不知道", "", "B"], "tuned": ["A", "选A", "答案是A。", "B"]}

    def side(name):
        def complete(batch, max_new_tokens):
            return [{"text": texts[name][int(messages[-1]["content"][1])], "finish_reason": "stop"} for messages in batch]

        return Side(name, name, name, complete)

    both, desk = [side(name) for name in texts], Desk(tmp_path / "a.jsonl", 2)
    base, tuned = (harness.mark(one, desk, "chat", str(path), "x", 0, 1) for one in both)
    assert (base.right, base.unreadable) == ([1, 0, 0, 0], [0, 1, 1, 0])
    found = exams.score(exams.read(path), "chat", (base.right, tuned.right), (base.unreadable, tuned.unreadable), set())
    assert found["row"]["base"]["value"] == 0.25
    assert found["row"]["tuned"]["value"] == 0.75
    assert found["unparseable"]["base"]["value"] == 0.5
    assert found["unparseable"]["tuned"]["value"] == 0.0


def test_the_harness_looks_at_the_letters_of_the_question_and_guesses_no_missing_one(tmp_path):
    path = tmp_path / "exam.csv"
    path.write_text("question,A,B,answer\n甲题目是什么呢,一,二,B\n乙题目是什么呢,一,二,A\n", encoding="utf-8")

    def letters(batch):
        scores = {"scores": [-2.0, -1.0, -0.1, -5, -5, -5, -5, -5]}
        return [scores if messages[-1]["content"].startswith("甲") else {"missing": "too long"} for messages in batch]

    side = Side("base", "base", "s", lambda batch, limit: [], letters=letters)
    found = harness.mark(side, Desk(tmp_path / "a.jsonl", 4), "likelihood", str(path), "x", 0, 1)
    assert (found.right[0], found.missing) == (1.0, {1})
    exam, kept = exams.without(exams.read(path), found.missing)
    assert ([question.text for question in exam.questions], kept) == (["甲题目是什么呢"], [0])
    assert exam.left_out == ["1 题超出模型上下文，未作答"]


def test_every_exam_has_task_files_of_its_own_for_both_modes(published):
    metadata = {
        "cmexam": str(published / "cmexam.json"),
        "cmb": str(published / "cmb.json"),
        "medqa_zh": str(published / "medqa.jsonl"),
    }
    metadata |= {"cmmlu": str(published / "anatomy.csv"), "ceval": str(published / "physician_val.csv")}
    tasks = harness.TaskManager(include_path=str(harness.TASKS), include_defaults=False, metadata=metadata)
    names = [f"xinglin_{exam}_chat" for exam in metadata] + [
        f"xinglin_{exam}_likelihood" for exam in metadata if exam != "cmexam"
    ]
    loaded = tasks.load(names)["tasks"]
    assert {name: len(loaded[name].dataset["test"]) for name in names} == dict.fromkeys(names, 1)


def test_cases_and_near_duplicates_share_a_label():
    stem = "患者男性四十岁反复上腹部疼痛三年余加重一周伴黑便两天血红蛋白下降"
    texts = [f"{stem}，最可能的诊断是", f"{stem}，首选的检查是", "慢性胃炎最常见的病因是什么", "错误的是", "错误的是"]
    questions = [exams.Question(text, {"A": f"甲{n}", "B": "乙"}, "A", "x") for n, text in enumerate(texts)]
    assert exams.cases(questions) == ["0", "0", "2", "3", "4"]


def test_the_answers_of_cmb_may_lie_in_a_file_of_their_own(tmp_path):
    rows = [{"id": n, "exam_subject": "内科", "question": f"题{n}", "option": {"A": "甲", "B": "乙"}} for n in (1, 2)]
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "test-answer.json").write_text(json.dumps([{"id": 2, "answer": "B"}]), encoding="utf-8")
    exam = exams.read(tmp_path)
    assert [(question.text, question.answer) for question in exam.questions] == [("题2", "B")]
    assert exam.left_out == ["1 题未用：没有答案或答案不在选项中"]


def test_contamination_needs_a_long_run_or_a_whole_question():
    long = "患者男性四十岁反复上腹部疼痛三年余加重一周伴黑便两天血红蛋白下降"
    questions = [
        exams.Question(text, {"A": "甲", "B": "乙"}, "A", "x")
        for text in (long, "慢性胃炎最常见的病因", "另一道没有出现过的题目")
    ]
    assert exams.contaminated(questions, [f"问：{long[:31]}。", "慢性胃炎，最常见的病因是什么"]) == {0, 1}
    assert exams.contaminated(questions, [long[:20], "慢性胃炎常见"]) == set()


def test_real_files(shared):
    sizes = {name: len(exams.read(shared / "data" / name).questions) for name in ("cmexam/val.json", "cmmlu/test", "ceval/val")}
    assert sizes["cmexam/val.json"] == 6810  # one of 6,811 has the answer "nan"
    assert sizes["cmmlu/test"] > 2000
    assert sizes["ceval/val"] == 90
