import pytest
import torch
from train_helpers import run

from xinglin import engine, records
from xinglin.train import model as train_model
from xinglin.train import rows as train_rows


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


def test_loss_equals_the_models_own_over_accumulated_batches(recipe, tiny, tokenizer):
    rows = train_rows.tokenize(records.load(recipe.folder / "3-split" / "train.jsonl"), tokenizer, 400).rows[:3]
    batch = train_rows.collate(rows, tokenizer.pad_token_id)
    base = engine.load_base(tiny)
    own = base(**batch).loss.item()
    padded = recipe.model_copy(update={"train": recipe.train.model_copy(update={"packing": False})})
    model = train_model.add_adapter(base, padded)
    assert model(**batch).loss.item() == pytest.approx(own, abs=1e-5)
    items = int((batch["labels"] != engine.IGNORED).sum())
    halves = [
        model(**train_rows.collate(part, tokenizer.pad_token_id), num_items_in_batch=torch.tensor(items)).loss
        for part in (rows[:1], rows[1:])
    ]
    assert sum(halves).item() == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_training_moves_the_adapter(recipe, quantization):
    weights = run(recipe.model_copy(update={"train": recipe.train.model_copy(update={"quantization": quantization})}))
    assert any(value.abs().sum() > 0 for key, value in weights.items() if "lora_B" in key)
