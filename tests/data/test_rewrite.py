"""Rewriting: every row ends in one named state."""

from pathlib import Path

import pytest

from xinglin import config, records
from xinglin.data import rewrite
from xinglin.schema import Answer

COMPLETE = Answer.from_points(
    [("头痛两天。", "考虑紧张型头痛。"), ("睡眠不足。", "应与偏头痛区分。"), ("建议看神经内科。", "注意休息。")]
).render()
PLAIN = "多半是没睡好引起的，注意休息，不好转就去医院看看。"


def recipe(folder: Path, **values: object) -> config.Recipe:
    return config.build({"name": "t", "model": "demo", "runs": str(folder), "rewrite": values})


def corpus(folder: Path, *answers: str) -> Path:
    rows = [
        records.Record(
            f"id{number}",
            f"g{number}",
            [{"role": "user", "content": f"头痛{number}天怎么办？"}, {"role": "assistant", "content": answer}],
            {"file": "a.csv", "row": number},
        )
        for number, answer in enumerate(answers, 1)
    ]
    path = folder / "t" / "1-clean" / "records.jsonl"
    records.write_jsonl(path, rows)
    return folder / "t" / "2-rewrite"


def test_without_an_endpoint_the_error_counts_rows_and_names_both_fixes(tmp_path: Path) -> None:
    folder = corpus(tmp_path, COMPLETE, PLAIN, PLAIN)
    with pytest.raises(ValueError, match=r"2 of 3 rows .*rewrite\.base_url.*rewrite\.required=false"):
        rewrite.run(recipe(tmp_path), folder)
    assert not (folder / "records.jsonl").exists()


def test_not_required_rows_go_on_marked(tmp_path: Path) -> None:
    folder = corpus(tmp_path, COMPLETE, PLAIN)
    _, facts = rewrite.run(recipe(tmp_path, required=False), folder)
    rows = records.load(folder / "records.jsonl")
    assert [row.meta["rewrite"] for row in rows] == ["passed through", rewrite.MARK]
    assert [row.answer for row in rows] == [COMPLETE, PLAIN]
    assert facts[rewrite.MARK] == 1
