"""Nothing alike stands in two parts, whatever is added; parts have the size that was asked for."""

import json
from pathlib import Path

import pytest

from xinglin import config, records
from xinglin.data import split
from xinglin.data.split import Pair, Row, divide


def groups(count: int) -> list[str]:
    return [f"g{number}" for number in range(count)]


def moved(count: int, added: int) -> int:
    shares = {"validation": 0.1, "test": 0.0}
    before = divide(groups(count), [""] * count, shares, 42)
    after = divide(groups(count + added), [""] * (count + added), shares, 42)
    return sum(old != new for old, new in zip(before, after[:count], strict=True))


@pytest.mark.parametrize(("rows", "held"), [(134, 14), (10, 1), (30, 3), (150, 15), (1000, 100)])
def test_holds_out_a_tenth_rounded_up(rows: int, held: int) -> None:
    parts = divide(groups(rows), [""] * rows, {"validation": 0.1, "test": 0.0}, 42)
    assert parts.count("validation") == held
    assert parts.count("train") == rows - held


def test_added_rows_move_only_groups_at_the_border() -> None:
    assert moved(134, 1) <= 1
    assert moved(5000, 50) <= 15
    assert moved(5000, 5000) <= 60


def test_same_seed_same_parts_other_seed_other_parts() -> None:
    shares = {"validation": 0.1, "test": 0.1}
    first, again, other = (divide(groups(500), [""] * 500, shares, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_groups_stay_whole_and_a_group_too_large_for_a_part_is_trained_on() -> None:
    names = ["large"] * 30 + groups(70)
    parts = divide(names, [""] * 100, {"validation": 0.1, "test": 0.1}, 3)
    assert {part for name, part in zip(names, parts, strict=True) if name == "large"} == {"train"}
    assert parts.count("validation") == parts.count("test") == 10


def test_balance_holds_out_the_same_share_of_every_department() -> None:
    strata = ["内科"] * 300 + ["外科"] * 50 + ["儿科"] * 7
    parts = divide(groups(357), strata, {"validation": 0.1, "test": 0.0}, 42)
    held = [stratum for stratum, part in zip(strata, parts, strict=True) if part == "validation"]
    assert {name: held.count(name) for name in set(held)} == {"内科": 30, "外科": 5, "儿科": 1}


def test_refuses_a_group_or_a_copy_that_crosses() -> None:
    rows = [Row(group, "", "问", "文", f"f:{number}") for number, group in enumerate("aabb")]
    with pytest.raises(ValueError, match="group a would stand in two parts"):
        split.check(rows, ["train", "validation", "train", "train"], {"row": [], "question": []})
    with pytest.raises(ValueError, match=r"f:0 and f:2 are alike \(0.91\)"):
        split.check(rows, ["train", "train", "validation", "validation"], {"row": [Pair(0, 2, 0.91)], "question": []})


def write(folder: Path, questions: list[str]) -> config.Recipe:
    rows = []
    for number, question in enumerate(questions):
        turns = (question, f"回答{number}，先观察三天，不缓解再就诊。")
        rows.append(records.record(turns, {"file": "f", "row": number}, None, None))
    records.write_jsonl(folder / "runs/t/1-clean/records.jsonl", rows)
    records.write_json(folder / "runs/t/1-clean/manifest.json", {})
    return config.build({"name": "t", "model": "demo", "runs": str(folder / "runs")})


def test_rows_with_questions_alike_stand_together_though_their_groups_differ(tmp_path: Path) -> None:
    base = "反复上腹隐痛三个月进食后加重夜间也会痛醒伴反酸嗳气体重没有明显变化想问要不要做胃镜检查"
    questions = [f"{base}{ending}" for ending in ("吗", "呢", "啊", "谢谢", "？")] + [
        f"第{number}个问题：{chr(0x4E00 + 37 * number) * 30}" for number in range(60)
    ]
    recipe = write(tmp_path, questions)
    folder = tmp_path / "runs/t/3-split"
    _, facts = split.run(recipe, folder)
    assert (facts["train"], facts["validation"], facts["groups"]) == (58, 7, 61)
    homes = [name for name in ("train", "validation") for row in records.load(folder / f"{name}.jsonl") if base in row.question]
    assert len(homes) == 5
    assert len(set(homes)) == 1
    leak = json.loads((folder / "leak.json").read_text(encoding="utf-8"))
    assert leak["highest_similarity"]["question"]["similarity"] < 0.8


def test_a_rewrite_of_other_rows_or_an_unfinished_one_is_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path, ["胃疼怎么办", "头晕怎么办"])
    clean, rewrite = tmp_path / "runs/t/1-clean/records.jsonl", tmp_path / "runs/t/2-rewrite"
    records.write_text(rewrite / "journal.sqlite", "")
    with pytest.raises(ValueError, match="is not finished: run `xinglin rewrite`"):
        split.inputs(recipe)
    records.finish(rewrite, records.manifest([clean], {}), [], {})
    assert split.inputs(recipe) == [rewrite / "records.jsonl"]
    write(tmp_path, ["胃疼怎么办"])
    with pytest.raises(ValueError, match=r"is older than .*: run `xinglin rewrite`"):
        split.inputs(recipe)


def test_balance_without_departments_is_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path, ["胃疼怎么办", "头晕怎么办"])
    balanced = recipe.model_copy(update={"split": recipe.split.model_copy(update={"balance": True})})
    with pytest.raises(ValueError, match="no row has a department"):
        split.run(balanced, tmp_path / "runs/t/3-split")


def test_too_few_rows_for_a_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 rows leave none for train"):
        split.run(write(tmp_path, ["胃疼怎么办"]), tmp_path / "runs/t/3-split")


def test_nothing_cleaned_says_which_command_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run `xinglin clean`"):
        split.inputs(config.build({"name": "t", "model": "demo", "runs": str(tmp_path)}))
