import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xinglin import config, engine, records, schema, train

POINTS = [("头痛三天。", "考虑紧张性头痛。"), ("可能与劳累有关。", "需要排除偏头痛。"), ("建议神经内科就诊。", "注意休息。")]


def write_split(recipe: config.Recipe, rows: int = 12, question: str = "头痛第{}天怎么办？") -> None:
    answer = schema.Answer.from_points(POINTS).render()
    made = [
        records.Record(
            f"r{i}", f"r{i}", [{"role": "user", "content": question.format(i)}, {"role": "assistant", "content": answer}], {}
        )
        for i in range(rows)
    ]
    records.write_jsonl(recipe.folder / "3-split" / "train.jsonl", made[:-2] if rows > 2 else made)
    records.write_jsonl(recipe.folder / "3-split" / "validation.jsonl", made[-2:])


@pytest.fixture
def recipe(tmp_path, tiny) -> config.Recipe:
    values = {
        "rank": 4,
        "alpha": 8,
        "epochs": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_length": 400,
        "learning_rate": 1e-3,
    }
    made = config.build({"name": "t", "model": str(tiny), "runs": tmp_path, "train": {**values, "evaluations": 3}})
    write_split(made)
    return made


def run(recipe: config.Recipe) -> dict[str, torch.Tensor]:
    folder = recipe.folder / "4-train"
    folder.mkdir(exist_ok=True)
    train.run(recipe, folder)
    return load_file(folder / "adapter" / "adapter_model.safetensors")


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


def test_only_the_adapter_moved_and_every_linear_layer_has_one(recipe, tiny):
    before = (tiny / "model.safetensors").read_bytes()
    weights = run(recipe)
    assert (tiny / "model.safetensors").read_bytes() == before
    assert {key.split(".")[-3] for key in weights} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert all(value.abs().sum() > 0 for key, value in weights.items() if "lora_B" in key)


def test_the_snippet_every_qwen_user_knows_runs_on_the_adapter(recipe, tiny):
    run(recipe)
    adapter = str(recipe.folder / "4-train" / "adapter")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), adapter)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "头痛怎么办？"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**chat, max_new_tokens=8, do_sample=False)
    assert output.shape[1] > chat["input_ids"].shape[1]


def test_two_runs_give_the_same_adapter(recipe):
    first = run(recipe)
    shutil.rmtree(recipe.folder / "4-train")
    second = run(recipe)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_killed_between_checkpoints_the_run_ends_in_the_same_adapter(recipe):
    whole = run(recipe)
    folder = recipe.folder / "4-train"
    checkpoints = sorted((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(checkpoints[-1])  # killed after the one before it, with the last one half-written
    checkpoints[-1].mkdir()
    (checkpoints[-1] / "adapter_model.safetensors").write_bytes(b"half")
    resumed = run(recipe)
    assert max((resumed[key] - whole[key]).abs().max().item() for key in whole) <= 1e-6
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines() if "eval_loss" in line]
    assert steps == [2, 4, 6]


def test_checkpoints_of_another_recipe_are_not_used(recipe, capsys):
    run(recipe)
    other = recipe.model_copy(update={"seed": 7})
    run(other)
    assert "is of other rows or settings; starting anew" in capsys.readouterr().err


def test_loss_equals_the_models_own_over_accumulated_batches(recipe, tiny, tokenizer):
    rows = train.tokenize(records.load(recipe.folder / "3-split" / "train.jsonl"), tokenizer, 400).rows[:3]
    batch = train.collate(rows, tokenizer.pad_token_id)
    base = engine.load_base(tiny)
    own = base(**batch).loss.item()
    model = train.add_adapter(base, recipe)
    assert model(**batch).loss.item() == pytest.approx(own, abs=1e-5)
    items = int((batch["labels"] != engine.IGNORED).sum())
    halves = [
        model(**train.collate(part, tokenizer.pad_token_id), num_items_in_batch=torch.tensor(items)).loss
        for part in (rows[:1], rows[1:])
    ]
    assert sum(halves).item() == pytest.approx(own, abs=1e-5)


def test_over_long_rows_are_dropped_and_counted_never_cut(recipe, tokenizer):
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    lengths = [len(row["input_ids"]) for row in train.tokenize(rows, tokenizer, 1000).rows]
    limit = max(lengths) - 1
    kept = train.tokenize(rows, tokenizer, limit)
    assert kept.dropped == sum(length > limit for length in lengths) > 0
    assert all(row["labels"][-2] == tokenizer.eos_token_id for row in kept.rows)  # the template ends in a line break


def test_a_limit_on_rows_takes_a_fixed_sample(recipe):
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    limited = recipe.model_copy(update={"train": recipe.train.model_copy(update={"rows": 4})})
    assert train.sample(rows, limited) == train.sample(rows, limited) != rows[:4]
    assert len(train.sample(rows, limited)) == 4
    assert train.sample(rows, recipe) == rows


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
        train.inputs(recipe)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_training_moves_the_adapter(recipe, quantization):
    weights = run(recipe.model_copy(update={"train": recipe.train.model_copy(update={"quantization": quantization})}))
    assert any(value.abs().sum() > 0 for key, value in weights.items() if "lora_B" in key)


PLOT = """
import warnings
warnings.simplefilter("error")
from xinglin import plots
line = {"step": 1, "epoch": 0.5, "loss": 2.0, "eval_loss": 2.1, "learning_rate": 1e-4}
plots.draw([line, {"step": 2, "epoch": 1.0, "loss": 1.0}])
"""


def test_no_glyph_is_missing_in_the_plot():
    done = subprocess.run([sys.executable, "-c", PLOT], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["qwen2.5-7b-lora", "qwen2.5-7b-qlora", "qwen2.5-0.5b-laptop"])
def test_the_recipes_for_qwen_train_on_a_local_folder_of_the_same_architecture(tmp_path, tiny, name):
    path = Path(__file__).parents[1] / "recipes" / f"{name}.yaml"
    small = ["train.epochs=1", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=1"]
    recipe = config.load(path, [f"model={tiny}", f"runs={tmp_path}", *small])
    write_split(recipe)
    assert any(value.abs().sum() > 0 for key, value in run(recipe).items() if "lora_B" in key)
