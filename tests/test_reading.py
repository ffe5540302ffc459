"""Every shape, format and encoding of a corpus is read; what cannot be read is a row with a reason, never an end."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from xinglin import reading, records, shapes, streams
from xinglin.reading import Kind
from xinglin.records import Record, Rejected

Q, A = "胃疼吃什么药？", "先查明原因，再决定用药。"
ROW = {"question": Q, "answer": A}


def pairs(path: Path, columns: dict[str, str] | None = None) -> list[tuple[str, str] | str]:
    return [(row.question, row.answer) if isinstance(row, Record) else row.reason for row in records.read(path, columns)]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(delimiter: str, *rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
        {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
        {"instruction": Q, "input": "", "output": A},
        {"instruction": [Q], "input": "", "output": [A]},
        {"prompt": Q, "completion": A},
        {"title": Q, "ask": "无", "answer": A, "department": "消化内科"},
        {"questions": Q, "answers": A},
        {"Question": Q, "Answer": A},
        {"dialogue": [{"speaker": "患者", "content": Q}, {"speaker": "医生", "content": A}]},
        {"prompt": [{"role": "user", "content": Q}], "completion": [{"role": "assistant", "content": A}]},
    ],
)
def test_reads_every_shape(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(row), encoding="utf-8")
    assert pairs(path) == [(Q, A)]


ASKED = [{"role": "user", "content": Q}]
WORSE = "多喝热水就好了，不用看医生。"


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": Q, "chosen": A, "rejected": WORSE},  # TRL
        {"prompt": ASKED, "chosen": [said(A)], "rejected": [said(WORSE)]},
        {"chosen": [*ASKED, said(A)], "rejected": [*ASKED, said(WORSE)]},
        {"prompt": Q, "chosen": [*ASKED, said(A)], "rejected": [*ASKED, said(WORSE)]},
        {"instruction": Q, "input": "", "chosen": A, "rejected": WORSE},  # LLaMA-Factory
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        {"messages": ASKED, "chosen": said(A), "rejected": said(WORSE)},
    ],
)
def test_reads_every_shape_of_a_pair(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(row), encoding="utf-8")
    [found] = records.read(path)
    assert isinstance(found, Record)
    assert ([turn["content"] for turn in found.messages], found.meta) == ([Q, A], {"rejected": WORSE})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": Q, "completion": A, "label": False},
        {"prompt": ASKED, "completion": [said(A)], "label": False},
        {"instruction": Q, "output": A, "kto_tag": False},
        {"messages": [*ASKED, said(A)], "kto_tag": False},
    ],
)
def test_reads_whether_an_answer_is_a_good_one(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(row, row | {"label": "内科", "kto_tag": None}), encoding="utf-8")
    marked, other = records.read(path)
    assert isinstance(marked, Record) and isinstance(other, Record)
    assert (marked.answer, marked.meta, other.meta) == (A, {"label": False}, {})


def test_a_pair_of_two_questions_is_no_pair(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    other = [{"role": "user", "content": "头疼呢？"}, said(WORSE)]
    path.write_text(lines({"chosen": [*ASKED, said(A)], "rejected": other}), encoding="utf-8")
    assert pairs(path) == ["unreadable: chosen and rejected do not answer the same question"]


def test_history_becomes_turns_and_what_does_not_alternate_is_mended(tmp_path: Path) -> None:
    alpaca = {"instruction": "那要忌口吗", "input": "", "output": A, "history": [["胃疼", "多久了？"], ["三天", "饭后重吗？"]]}
    said = [("assistant", "您好"), ("user", "胃疼"), ("user", "三天了"), ("assistant", "饭后重吗？"), ("user", "谢谢")]
    listed = {"messages": [{"role": role, "content": content} for role, content in said]}
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(alpaca, listed), encoding="utf-8")
    first, second = (row for row in records.read(path) if isinstance(row, Record))
    assert [turn["content"] for turn in first.messages] == ["胃疼", "多久了？", "三天", "饭后重吗？", "那要忌口吗", A]
    assert [turn["role"] for turn in first.messages] == ["user", "assistant"] * 3
    assert [turn["content"] for turn in second.messages] == ["胃疼\n三天了", "饭后重吗？"]


def test_title_input_and_case_description_go_before_the_question(tmp_path: Path) -> None:
    rows = [
        {"title": "胃疼怎么办", "ask": "三天了，饭后加重", "answer": A, "department": "消化内科", "id": 7},
        {"instruction": "解释化验单", "input": "白细胞 12", "output": A},
        {
            "description": "男，49岁",
            "QA_pairs": [{"question": "诊断？", "answer": "疝"}, {"question": "治疗？", "answer": "手术"}],
        },
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*rows), encoding="utf-8")
    first, second, third = (row for row in records.read(path) if isinstance(row, Record))
    assert (first.question, first.meta) == ("胃疼怎么办\n三天了，饭后加重", {"department": "消化内科", "id": "7"})
    assert second.question == "解释化验单\n白细胞 12"
    assert [turn["content"] for turn in third.messages] == ["男，49岁\n诊断？", "疝", "治疗？", "手术"]


def test_columns_are_named_by_the_recipe_and_missing_ones_by_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(table(",", ["病情描述", "医生说", "部门"], [Q, A, "内科"]), encoding="utf-8")
    assert pairs(path) == ["unreadable: no question among the columns 病情描述, 医生说, 部门; name them in clean.columns"]
    columns = {"question": "病情描述", "answer": "医生说", "department": "部门"}
    [row] = records.read(path, columns)
    assert isinstance(row, Record)
    assert (row.question, row.answer, row.meta) == (Q, A, {"department": "内科"})
    assert pairs(path, columns | {"answer": "回复"}) == [
        "unreadable: no column '回复' among 病情描述, 医生说, 部门; see clean.columns"
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": Q, "answer": ""}, "empty_answer"),
        ({"question": "", "answer": A}, "no_question"),
        ({"messages": [{"role": "user", "content": Q}]}, "no_answer"),
        ({"messages": [{"role": "robot", "content": Q}]}, "unreadable: a turn has the role 'robot'"),
        ({"messages": ["text"]}, "unreadable: a turn is a str, not an object"),
        ([Q, A], "unreadable: holds a list, not an object"),
        ({"question": None, "answer": None}, "no_question"),
    ],
)
def test_says_why_a_row_is_no_dialogue(row: Any, reason: str) -> None:
    found = shapes.dialogue(1, row, {})
    assert isinstance(found, shapes.Unreadable)
    assert found.reason == reason


# ---------------------------------------------------------------- formats and encodings

FORMATS: dict[str, tuple[str, str]] = {
    "array.json": ("json", json.dumps([ROW, ROW], ensure_ascii=False, indent=2)),
    "flat.json": ("json", json.dumps([ROW, ROW], ensure_ascii=False)),
    "lines.json": ("jsonl", lines(ROW, ROW)),
    "wrapped.json": ("json", json.dumps({"metadata": {"version": 1}, "data": [ROW, ROW]}, ensure_ascii=False)),
    "pretty.json": ("json", json.dumps({"metadata": {"n": "[1]"}, "data": [ROW, ROW]}, ensure_ascii=False, indent=1)),
    "objects.json": ("json", "\n".join(json.dumps(row, ensure_ascii=False, indent=1) for row in (ROW, ROW))),
    "quotes.jsonl": ("jsonl", f"{ROW}\n{ROW}\n"),
    "rows.csv": ("csv", table(",", ["question", "answer"], [Q, A], [Q, A])),
    "rows.tsv": ("tsv", table("\t", ["question", "answer"], [Q, A], [Q, A])),
    "rows.txt": ("text", f"{Q}\n{A}\n\n\n{Q}\n{A}\n"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("name", FORMATS)
def test_detects_format_encoding_and_compression(tmp_path: Path, name: str, encoding: str, zipped: bool) -> None:
    form, text = FORMATS[name]
    path = tmp_path / (name + ".gz" * zipped)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert reading.detect(path) == Kind(form, encoding, zipped)
    assert pairs(path) == [(Q, A), (Q, A)]


def test_reads_parquet_with_nested_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    turns = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
    pl.DataFrame({"conversations": [turns, turns[:1]], "scores": [[1, 2], []]}).write_parquet(path)
    assert reading.detect(path) == Kind("parquet", "", False)
    assert pairs(path) == [(Q, A), "no_answer"]


def test_a_row_keeps_the_line_it_stands_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,answer\n"两行的\n问题",答一\n第二问,答二\n', encoding="utf-8")
    assert [(row.source["row"], row.source["file"]) for row in records.read(path)] == [(2, str(path)), (4, str(path))]


def test_encoding_is_found_behind_a_long_ascii_beginning(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    filler = lines({"id": "x" * 100}) * 12_000
    path.write_bytes(filler.encode() + lines(ROW).encode("gb18030"))
    assert reading.detect(path).encoding == "gb18030"
    assert pairs(path)[-1] == (Q, A)


# ---------------------------------------------------------------- bad input


def _cut_gzip() -> bytes:
    draw = [f"{Q}{number * 7919 % 10_007}" for number in range(3000)]
    return gzip.compress(lines(*({"question": question, "answer": A} for question in draw)).encode())[:-4000]


GOOD = json.dumps(ROW, ensure_ascii=False)
BAD: dict[str, tuple[str, bytes, str]] = {
    "a damaged line": ("b.jsonl", f"{GOOD}\n".encode() + b'{"question": "\xff\xfe\xfa"}\n' + GOOD.encode(), "not utf-8"),
    "a broken line": ("b.jsonl", f'{GOOD}\n{{"question": "头疼" "answer"}}\n{GOOD}'.encode(), "not JSON"),
    "deep JSON": ("b.jsonl", f"{GOOD}\n{'[' * 10_000}{']' * 10_000}\n{GOOD}".encode(), "JSON nested too deep"),
    "deep Python": (
        "b.jsonl",
        f"{GOOD}\n".encode() + b"{'a':" * 10_000 + b"1" + b"}" * 10_000 + f"\n{GOOD}".encode(),
        "not JSON",
    ),
    "deep in an array": ("b.json", f"[{GOOD}, {'[' * 10_000}{']' * 10_000}, {GOOD}]".encode(), "JSON nested too deep"),
    "a broken element": ("b.json", f'[{GOOD}, {{"question": "头疼 "answer": 1}}, {GOOD}]'.encode(), "not JSON"),
    "an array cut off": ("b.json", f'[{GOOD}, {GOOD}, {{"question": "头'.encode(), "not JSON"),
    "an open quote": (
        "b.csv",
        f'question,answer\n{Q},{A}\n"不闭合,{A}\n{Q},{A}\n'.encode(),
        "a quote is opened and never closed",
    ),
    "too few columns": ("b.csv", f"question,answer\n{Q},{A}\n{Q}\n{Q},{A}\n".encode(), "1 columns where the header has 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_row_costs_itself_and_no_other(tmp_path: Path, case: str) -> None:
    name, data, reason = BAD[case]
    path = tmp_path / name
    path.write_bytes(data)
    found = pairs(path)
    assert [row for row in found if isinstance(row, tuple)] == [(Q, A), (Q, A)]
    [rejected] = (row for row in found if isinstance(row, str))
    assert rejected.startswith(f"unreadable: {reason}")


def test_a_broken_gzip_is_read_up_to_the_break(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(_cut_gzip())
    *good, last = records.read(path)
    assert len(good) > 1000
    assert all(isinstance(row, Record) for row in good[:-1])
    assert isinstance(last, Rejected)
    assert last.reason.startswith("unreadable: gzip stream broken after row")


def test_nul_bytes_are_dropped_and_a_quote_inside_a_bare_field_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f'question,answer\n胃\0疼，\0身高5"吗,{A}\n{Q},{A}\n'.encode())
    assert pairs(path) == [('胃疼，身高5"吗', A), (Q, A)]


@pytest.mark.parametrize("make", [lambda row: f"{row}\n", lambda row: f"[{row}, {json.dumps(ROW)}]"])
def test_a_row_longer_than_the_limit_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], str]
) -> None:
    monkeypatch.setattr(streams, "LONGEST_ROW", 2**16)
    monkeypatch.setattr(streams, "BLOCK", 2**12)
    path = tmp_path / "rows.json"
    path.write_text(make(json.dumps({"question": Q, "answer": "长" * 2**16})) + lines(ROW), encoding="utf-8")
    found = pairs(path)
    assert isinstance(found[0], str)
    assert found[0].startswith("unreadable:")
    assert found[1] == (Q, A)


def test_an_array_is_streamed_in_small_blocks_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 97)
    rows = [{"question": f"{Q}{number}", "answer": A * (number % 9)} for number in range(200)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert [row.source["row"] for row in records.read(path)] == list(range(1, 201))
    assert sum(isinstance(row, tuple) for row in pairs(path)) == sum(1 for row in rows if row["answer"])


def test_reads_the_real_corpora(shared: Path) -> None:
    expected = {
        "toyhom/样例_内科5000-6000.csv": (Kind("csv", "gb18030", False), 7644, 0),
        "toyhom/内科.txt": (Kind("text", "gb18030", False), 4048, 0),
        "zhongjing/huatuo26M_test.json": (Kind("json", "utf-8", False), 6000, 0),
        "zhongjing/CMtMedQA_test.json": (Kind("json", "utf-8", False), 1144, 0),
        "caregpt/output.jsonl": (Kind("jsonl", "utf-8", False), 100, 0),
        "caregpt/test_datasets.jsonl": (Kind("jsonl", "utf-8", False), 6000, 0),
        "cmexam/val.json": (Kind("json", "utf-8", False), 6811, 0),
        "cmb/CMB-Clin_CMB-test-qa.json": (Kind("json", "utf-8", False), 74, 0),
    }
    for name, (kind, good, bad) in expected.items():
        path = shared / "data" / name
        rows = [isinstance(row, Record) for row in records.read(path)]
        assert (name, reading.detect(path), rows.count(True), rows.count(False)) == (name, kind, good, bad)
