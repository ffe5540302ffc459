import json
import re

from xinglin import config, records, schema
from xinglin.engine import Engine

BASE = config.DEMO / "base"
ROWS = [json.loads(line) for line in (config.DEMO / "sample.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_base_is_a_small_qwen2_in_safetensors():
    assert json.loads((BASE / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 12_000_000
    assert not list(BASE.glob("*.bin"))


def test_the_base_does_not_answer_in_three_sections():
    questions = [row["conversations"][0]["content"] for row in ROWS[:3]]
    replies = Engine.load(str(BASE)).complete([schema.messages(question) for question in questions], max_new_tokens=120)
    assert all(len(reply.text) > 10 for reply in replies)
    assert not any(schema.Answer.parse(reply.text).sections for reply in replies)


def test_the_sample_holds_134_rows_over_20_departments_and_more_than_60_of_dirt():
    assert len(ROWS) == 223
    assert len({row["department"] for row in ROWS if "department" in row}) >= 20
    assert len({row["conversations"][0]["content"] for row in ROWS if "department" in row}) == 134


def test_complete_answers_of_the_sample_have_six_points_and_150_to_400_characters():
    rows = [row for row in ROWS if "department" in row]
    answers = [row["conversations"][1]["content"] for row in rows]
    assert all(schema.check(answer) == [] and schema.points_present(answer) == 6 for answer in answers)
    assert all(150 <= len(answer) <= 400 for answer in answers)


def test_no_answer_of_the_sample_promises_a_cure_or_invents_a_result():
    words = r"根治|保证治好|100%|您得的是|检查结果显示|CT显示|化验显示"
    answers = [row["conversations"][1]["content"] for row in ROWS if "department" in row]
    assert [answer for answer in answers if re.search(words, answer)] == []


def test_every_row_is_read():
    found = list(records.read(config.DEMO / "sample.jsonl"))
    assert len(found) == len(ROWS)
