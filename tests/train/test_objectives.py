"""Every objective runs through the same stage and moves the adapter the way it should."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_helpers import run, write_split

from xinglin import cli, config, engine, records
from xinglin.train import preference, rewards, stage

RECIPES = Path(__file__).parents[2] / "recipes" / "objectives"
SMALL = ["train.epochs=2", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=1", "train.rank=4"]
WORSE = "多喝热水，多休息就好。"


def made(name: str, tiny: Path, runs: Path, *overrides: str) -> config.Recipe:
    settings = [*SMALL, "train.learning_rate=1e-3", "train.max_length=400", "train.gradient_checkpointing=false"]
    recipe = config.load(RECIPES / f"{name}.yaml", [f"model={tiny}", f"runs={runs}", *settings, *overrides])
    write_split(recipe)
    return recipe


def mark(recipe: config.Recipe, **meta: object) -> None:
    """Give every row of the split this meta."""
    for name in ("train", "validation"):
        path = recipe.folder / "3-split" / f"{name}.jsonl"
        records.write_jsonl(path, [replace(record, meta=meta) for record in records.load(path)])


def log(recipe: config.Recipe) -> list[dict]:
    return [json.loads(line) for line in (recipe.folder / "4-train" / "log.jsonl").read_text().splitlines()]


def moved(weights: dict[str, torch.Tensor]) -> list[bool]:
    return [bool(value.abs().sum() > 0) for key, value in weights.items() if "lora_B" in key]


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"])
def test_pairs_move_the_adapter_towards_the_better_answer(tmp_path, tiny, name):
    recipe = made(name, tiny, tmp_path)
    mark(recipe, rejected=WORSE)
    assert moved(run(recipe)) == [True] * 14
    lines = log(recipe)
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    assert margins[-1] > margins[0]
    if name != "orpo":  # at the first step the adapter changes nothing: the reference is the base itself
        assert margins[0] == pytest.approx(0, abs=1e-4)
    assert any("eval_loss" in line for line in lines)
    assert "rewards/margins" in (recipe.folder / "4-train" / "log.csv").read_text().splitlines()[0]


def test_without_marks_the_worse_answer_is_the_one_before_rewriting(tmp_path, tiny, tokenizer):
    recipe = made("dpo", tiny, tmp_path)
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    before = [replace(row, messages=[row.messages[0], {"role": "assistant", "content": WORSE}]) for row in rows[:3]]
    records.write_jsonl(recipe.folder / "1-clean" / "records.jsonl", [*before, *rows[3:]])
    found = preference.read(rows, tokenizer, recipe)
    assert len(found.columns) == 3
    assert tokenizer.decode(found.columns[0]["rejected_ids"]) == f"{WORSE}<|im_end|>"
    assert tokenizer.decode(found.columns[0]["chosen_ids"]).startswith(rows[0].answer[:8])


def test_ids_of_pairs_are_those_of_supervised_rows(tmp_path, tiny, tokenizer):
    recipe = made("dpo", tiny, tmp_path)
    rows = [replace(records.load(recipe.folder / "3-split" / "train.jsonl")[0], meta={"rejected": "<|im_start|>system"})]
    column = preference.read(rows, tokenizer, recipe).columns[0]
    assert column["prompt_ids"] == engine.encode(tokenizer, preference.schema.messages(rows[0].question))
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") not in column["rejected_ids"]
    assert column["chosen_ids"][-1] == column["rejected_ids"][-1] == tokenizer.eos_token_id


def test_rows_without_a_worse_answer_are_one_clear_line(tmp_path, tiny):
    recipe = made("dpo", tiny, tmp_path)
    with pytest.raises(ValueError, match=r"train\.objective=dpo: none of 10 rows has a worse answer in meta"):
        run(recipe)
    assert not (recipe.folder / "4-train" / "adapter").exists()


def test_kto_takes_marks_and_pairs_each_prompt_with_the_answer_before_it(tmp_path, tiny, tokenizer):
    recipe = made("kto", tiny, tmp_path)
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")[:4]
    marked = [replace(rows[0], meta={"label": False}), replace(rows[1], meta={"rejected": WORSE}), *rows[2:]]
    columns = preference.read(marked, tokenizer, recipe).columns
    assert sorted(one["label"] for one in columns) == [False, False, True, True, True]
    assert columns[1]["KL_completion_ids"] == columns[0]["completion_ids"]
    assert columns[0]["KL_completion_ids"] == columns[1]["completion_ids"]


def test_plain_text_is_learnt_whole_and_goes_on_in_the_next_row(tmp_path, tiny):
    recipe = made("pretrain", tiny, tmp_path, "train.max_length=40")
    assert moved(run(recipe)) == [True] * 14
    losses = [line["loss"] for line in log(recipe) if "loss" in line]
    assert losses[-1] < losses[0]


def test_grpo_learns_from_rewards(tmp_path, tiny, monkeypatch):
    def complete(completions, **_):  # a random model's answers are all equally incomplete, and nothing can be learnt from that
        return [len(completion[0]["content"]) % 7 / 7 for completion in completions]

    monkeypatch.setattr(rewards, "complete", complete)
    recipe = made("grpo", tiny, tmp_path, "train.epochs=1", "train.rows=2")
    path = recipe.folder / "3-split" / "train.jsonl"
    rows = records.load(path)
    records.write_jsonl(path, [rows[0], replace(rows[1], meta={"choice": "B"})])
    weights = run(recipe)
    lines = [line for line in log(recipe) if "reward" in line]
    assert lines and 0 <= lines[0]["reward"] <= 3
    assert any("rewards/complete/mean" in line for line in lines)
    assert moved(weights) == [True] * 14


def answers(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_rewards_are_graded_and_each_has_its_rows():
    whole = "\n".join(f"{title}\n内容。" for title in preference.schema.TITLES)
    texts = answers(whole, "多休息。", "选B", "服用阿司匹林100mg。")
    choice = ["", "", "B", ""]
    assert rewards.complete(texts, choice) == [1.0, 1 / 4, None, 1 / 4]
    assert rewards.right_choice(texts, choice) == [None, None, 1.0, None]
    faithful = rewards.faithful(texts, ["头痛"] * 4, ["多休息。"] * 4, choice)
    assert faithful[1:3] == [1.0, None] and faithful[3] < 1 / 2


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"objective": "dpo", "method": "pissa"}, "leaves no untouched base for train.objective=dpo"),
        ({"objective": "grpo", "batch_size": 3, "micro_batch_size": 3}, "train.batch_size=3 must be even"),
        ({"objective": "kto", "replay": {"file": "g.jsonl", "share": 0.1}}, "train.replay goes with"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(train, message):
    with pytest.raises(ValueError, match=message):
        config.build({"model": "demo", "train": train})


def test_a_corpus_of_pairs_goes_from_its_file_to_dpo(tmp_path, tiny, capsys):
    """Through clean and split, as a user would run it; no worse answer of a training row stands in a validation row."""
    asked = [
        f"头痛第{day}天，{''.join(chr(0x4E00 + (day * 977 + place * 131) % 5000) for place in range(12))}怎么办？"
        for day in range(12)
    ]
    pairs = [
        {
            "prompt": [{"role": "user", "content": text}],
            "chosen": f"{text}先到神经内科就诊，查明原因再用药。",
            "rejected": f"{text}{WORSE}",
        }
        for text in asked
    ]
    records.write_jsonl(tmp_path / "pairs.jsonl", pairs)
    recipe = [str(RECIPES / "dpo.yaml"), f"model={tiny}", f"runs={tmp_path}", f"data=[{tmp_path / 'pairs.jsonl'}]", *SMALL]
    recipe += ["train.epochs=1", "train.max_length=400", "train.gradient_checkpointing=false"]
    for verb in ("clean", "split", "train"):
        assert cli.main([verb, *recipe]) == 0, capsys.readouterr().err
    folder = tmp_path / "dpo" / "3-split"
    train, validation = (
        {row.meta["rejected"] for row in records.load(folder / f"{name}.jsonl")} for name in ("train", "validation")
    )
    assert len(train) == 10 and len(validation) == 2 and not train & validation
    assert "10 rows read, 10 with a worse answer" in capsys.readouterr().err


def test_an_answer_marked_as_bad_is_not_learnt_by_heart(tmp_path, tiny, tokenizer):
    recipe = config.build({"name": "t", "model": str(tiny), "runs": tmp_path})
    write_split(recipe)
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    marked = [replace(rows[0], meta={"label": False}), replace(rows[1], meta={"label": True}), *rows[2:]]
    assert len(stage.read(marked, tokenizer, recipe).rows) == len(rows) - 1
