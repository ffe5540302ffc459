"""Every method moves what it should, and what it saves works without it."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from train_helpers import run, write_split
from transformers import AutoModelForCausalLM

from xinglin import cli, config, engine, records, schema
from xinglin.engine import Engine
from xinglin.train import model as train_model
from xinglin.train import rows as train_rows

RECIPES = Path(__file__).parents[2] / "recipes" / "methods"
SMALL = ["train.epochs=1", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=1", "train.rank=4"]


def trained(name: str, tiny: Path, runs: Path, *overrides: str) -> tuple[config.Recipe, dict[str, torch.Tensor]]:
    recipe = config.load(RECIPES / f"{name}.yaml", [f"model={tiny}", f"runs={runs}", *SMALL, *overrides])
    write_split(recipe)
    return recipe, run(recipe)


def update(weights: dict[str, torch.Tensor], part: str) -> float:
    return max(value.abs().max().item() for key, value in weights.items() if part in key)


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "lora-plus", "pissa", "qlora-nf4", "qlora-int8"])
def test_a_method_moves_the_adapter_on_every_linear_layer_and_not_the_base(tmp_path, tiny, name):
    before = (tiny / "model.safetensors").read_bytes()
    recipe, weights = trained(name, tiny, tmp_path)
    assert len([key for key in weights if "lora_B" in key]) == 2 * 7
    assert all(value.abs().sum() > 0 for key, value in weights.items() if "lora_B" in key)
    assert (tiny / "model.safetensors").read_bytes() == before
    log = (recipe.folder / "4-train" / "log.jsonl").read_text()
    assert "eval_loss" in log


def test_rslora_scales_by_the_root_of_the_rank(tmp_path, tiny):
    recipe = config.load(RECIPES / "rslora.yaml", [f"model={tiny}", "train.rank=16", "train.alpha=8"])
    adapted = train_model.add_adapter(engine.load_base(tiny), recipe)
    scales = {module.scaling["default"] for name, module in adapted.named_modules() if name.endswith("q_proj")}
    assert scales == {8 / 4}


def test_dora_moves_the_magnitudes(tmp_path, tiny):
    _, weights = trained("dora", tiny, tmp_path)
    base = load_file(tiny / "model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    moved = weights[f"base_model.model.{name}.lora_magnitude_vector"] - base[f"{name}.weight"].norm(dim=1)
    assert 0 < moved.abs().max() < 0.01


def test_lora_plus_moves_b_faster_than_a(tmp_path, tiny):
    same = ["train.learning_rate=1e-4", "train.batch_size=12", "train.micro_batch_size=12"]  # one step: of Adam, the rate itself
    _, plain = trained("lora", tiny, tmp_path / "plain", *same)
    _, plus = trained("lora-plus", tiny, tmp_path / "plus", *same)
    assert update(plus, "lora_B") == pytest.approx(train_model.RATIO * update(plain, "lora_B"), rel=0.01)


def test_pissa_loads_on_the_untouched_base_and_is_what_was_trained(tmp_path, tiny, tokenizer):
    recipe, weights = trained("pissa", tiny, tmp_path)
    assert {value.shape[0] for key, value in weights.items() if "lora_A" in key} == {8}  # the difference of two of rank 4
    rows = train_rows.tokenize(records.load(recipe.folder / "3-split" / "validation.jsonl"), tokenizer, 1024).rows
    batch = train_rows.collate(rows, tokenizer.pad_token_id)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(recipe.folder / "4-train" / "adapter"))
    lines = records_of(recipe.folder / "4-train" / "log.jsonl")
    with torch.no_grad():
        loss = tuned(**batch).loss.item()
        assert loss != pytest.approx(AutoModelForCausalLM.from_pretrained(tiny)(**batch).loss.item(), abs=1e-3)
    assert loss == pytest.approx([line["eval_loss"] for line in lines if "eval_loss" in line][-1], abs=1e-4)


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_full_moves_all_weights_and_base_and_tuned_answer_side_by_side(tmp_path, tiny):
    recipe = config.load(RECIPES / "full.yaml", [f"model={tiny}", f"runs={tmp_path}", *SMALL, "train.learning_rate=1e-2"])
    write_split(recipe)
    base = load_file(tiny / "model.safetensors")
    tuned = run(recipe, "model.safetensors")
    folder = recipe.folder / "4-train" / "adapter"
    still = [key for key in base if torch.equal(base[key], tuned[key])]
    assert still == []
    both = Engine.load(str(tiny), folder)
    chat = [*schema.messages("头痛三天怎么办？"), {"role": "assistant", "content": "多休息。"}]
    losses = {side: both.losses([chat], tuned=side) for side in (True, False)}
    assert losses[False] == Engine.load(str(tiny)).losses([chat])
    assert losses[True] == Engine.load(str(folder)).losses([chat])
    assert losses[True] != losses[False]
    for side, alone in ((True, Engine.load(str(folder))), (False, Engine.load(str(tiny)))):
        pieces = "".join(both.stream(chat[:2], tuned=side, max_new_tokens=6))
        assert pieces == "".join(alone.stream(chat[:2], max_new_tokens=6))
    assert both.complete([chat[:2]], max_new_tokens=4, tuned=False) == Engine.load(str(tiny)).complete(
        [chat[:2]], max_new_tokens=4
    )


@pytest.mark.parametrize("method", ["pissa", "full"])
def test_a_method_that_changes_the_base_needs_it_unquantised(method):
    with pytest.raises(
        ValueError, match=rf"train\.method={method} changes the base's own weights, which train\.quantization=nf4"
    ):
        config.build({"model": "demo", "train": {"method": method, "quantization": "nf4"}})


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ValueError, match=r"train\.method='adalora': input should be 'lora', 'rslora', 'dora'"):
        config.build({"model": "demo", "train": {"method": "adalora"}})


def test_a_wholly_tuned_model_is_evaluated_and_exported_like_an_adapter(tmp_path, tiny, capsys):
    asked = ["evaluate.questions=2", "evaluate.max_new_tokens=4", "train.learning_rate=1e-2"]
    overrides = [f"model={tiny}", f"runs={tmp_path}", *SMALL, *asked]
    path = RECIPES / "full.yaml"
    write_split(config.load(path, overrides))
    for verb in ("train", "evaluate", "export"):
        assert cli.main([verb, str(path), *overrides]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "full" / "5-evaluate" / "results.json").read_text())
    assert any(pair["base"]["text"] != pair["tuned"]["text"] for pair in results["pairs"])
    parity = json.loads((tmp_path / "full" / "6-export" / "parity.json").read_text())
    assert all(row["same"] for row in parity)
