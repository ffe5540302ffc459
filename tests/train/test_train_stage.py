import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_helpers import run, write_split

from xinglin import config, planner, records
from xinglin.train import stage


def test_steps_log_and_files(recipe):
    run(recipe)
    folder = recipe.folder / "4-train"
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 6  # 10 rows in steps of 4, 2 epochs
    assert sum("eval_loss" in line for line in lines) == 3
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert (folder / "log.csv").read_text().startswith("step,epoch,loss,eval_loss,learning_rate")
    assert "<svg" in (folder / "report.html").read_text()
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_give_the_same_adapter(recipe):
    first = run(recipe)
    shutil.rmtree(recipe.folder / "4-train")
    second = run(recipe)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_all_rows_over_length_is_one_clear_line(recipe):
    short = recipe.model_copy(update={"train": recipe.train.model_copy(update={"max_length": 16})})
    with pytest.raises(ValueError, match=r"none of 10 rows fits train\.max_length=16; raise it"):
        run(short)
    assert not (recipe.folder / "4-train" / "adapter").exists()


def test_one_row_trains(recipe):
    write_split(recipe, rows=1)
    run(recipe)


def test_missing_rows_name_the_verb(recipe):
    shutil.rmtree(recipe.folder / "3-split")
    with pytest.raises(ValueError, match="`xinglin split` writes it"):
        stage.inputs(recipe)


def test_a_split_of_rows_that_are_no_more_is_refused(recipe):
    clean, rewrite, split = (recipe.folder / name for name in ("1-clean", "2-rewrite", "3-split"))
    for before, stage_folder in ((None, clean), (clean, rewrite), (rewrite, split)):
        records.write_text(stage_folder / "records.jsonl", stage_folder.name)
        inputs = [before / "records.jsonl"] if before else []
        records.finish(stage_folder, records.manifest(inputs, {}), [], {})
    assert len(stage.inputs(recipe)) == 2
    records.write_text(rewrite / "records.jsonl", "other answers")
    with pytest.raises(ValueError, match=r"3-split is older than .*2-rewrite: run `xinglin split`$"):
        stage.inputs(recipe)
    records.write_text(clean / "records.jsonl", "other rows")
    with pytest.raises(
        ValueError, match=r"2-rewrite is older than .*1-clean: run `xinglin rewrite`, or delete .*2-rewrite; then"
    ):
        stage.inputs(recipe)
    shutil.rmtree(rewrite)
    with pytest.raises(ValueError, match=r"3-split is older than .*1-clean: run `xinglin split`$"):
        stage.inputs(recipe)
    shutil.rmtree(clean)
    assert len(stage.inputs(recipe)) == 2


@pytest.mark.parametrize("name", ["qwen2.5-7b-lora", "qwen2.5-7b-qlora", "qwen2.5-0.5b-laptop"])
def test_the_recipes_for_qwen_train_on_a_local_folder_of_the_same_architecture(tmp_path, tiny, name):
    path = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
    small = ["train.epochs=1", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=1"]
    recipe = config.load(path, [f"model={tiny}", f"runs={tmp_path}", *small])
    write_split(recipe)
    assert any(value.abs().sum() > 0 for key, value in run(recipe).items() if "lora_B" in key)


def test_a_tracker_that_is_not_installed_is_one_line(recipe):
    tracked = recipe.model_copy(update={"train": recipe.train.model_copy(update={"report_to": "swanlab"})})
    with pytest.raises(ValueError, match=r"train\.report_to=swanlab: the package is not installed; pip install swanlab"):
        stage.run(tracked, tracked.folder / "4-train")


def test_a_loss_that_is_no_number_stops_in_one_line(recipe):
    wild = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(ValueError, match=r"nan at step \d is not a number to learn from; lower train\.learning_rate"):
        run(wild)
    assert not (recipe.folder / "4-train" / "adapter").exists()


def test_the_card_says_what_it_takes_to_make_the_adapter_again(recipe):
    run(recipe)
    text = (recipe.folder / "4-train" / "adapter" / "README.md").read_text()
    rows = records.sha256(recipe.folder / "3-split" / "train.jsonl")[:16]
    assert f"train {rows}" in text
    assert all(word in text for word in (f"seed {recipe.seed}", "torch 2.", "transformers 5.", "xinglin "))


def test_a_gpu_that_is_too_small_is_refused_before_loading(recipe, monkeypatch):
    monkeypatch.setattr(planner, "free_memory", lambda: (2**20, True))
    monkeypatch.setattr(stage.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(stage.engine, "load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"train: training takes about .* GiB of 0\.0"):
        stage.run(recipe, recipe.folder / "4-train")


def test_no_row_and_an_empty_answer_are_one_clear_line(recipe):
    path = recipe.folder / "3-split" / "train.jsonl"
    row = records.load(path)[0]
    records.write_jsonl(path, [replace(row, messages=[row.messages[0], {"role": "assistant", "content": ""}])])
    with pytest.raises(ValueError, match=r"train: 1 rows of 3-split/train\.jsonl have an empty answer; remove them"):
        run(recipe)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.jsonl holds no row to learn from; `xinglin split` writes it"):
        run(recipe)
