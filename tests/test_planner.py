"""The arithmetic of the planner against known models and against what autograd keeps."""

import pytest
import torch

from xinglin import planner
from xinglin.config import Train
from xinglin.train import layers as train_layers

# The values of the models' own config.json.
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_HALF = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_8B = {
    "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 12288, "vocab_size": 151936, "tie_word_embeddings": False, "head_dim": 128, "attention_bias": False,
}  # fmt: skip
CARD = 80 * planner.GIB


def train(**values) -> Train:
    return Train(**{"rank": 32, "alpha": 64, "batch_size": 16, "micro_batch_size": 4, "max_length": 2048, **values})


@pytest.mark.parametrize(
    ("values", "parameters"), [(QWEN_7B, 7_615_616_512), (QWEN_HALF, 494_032_768), (QWEN3_8B, 8_190_735_360)]
)
def test_parameters_are_those_of_the_published_models(values, parameters):
    assert planner.shape(values).parameters == parameters


def test_adapter_of_rank_32_on_qwen_7b_has_the_known_size():
    assert planner.trained(planner.shape(QWEN_7B), train()) == 80_740_352


def tiny(kind: str, bf16: bool, layers: int) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {**TINY, "num_hidden_layers": layers}
    model = Qwen2ForCausalLM(Qwen2Config(**{key: value for key, value in shape.items() if key != "model_type"}))
    if kind == "full":
        return model
    if bf16:
        model.to(torch.bfloat16)
    get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    return model


TINY = {**QWEN_HALF, "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 384,
        "vocab_size": 256}  # fmt: skip
TOKENS = (2, 256)


def kept(kind: str, bf16: bool, layers: int) -> int:
    """Bytes that autograd keeps of one forward pass, weights and their bf16 copies left out."""
    model, found = tiny(kind, bf16, layers), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape[0] in (TOKENS[0], TOKENS[0] * TOKENS[1]):
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids, ours = torch.zeros(TOKENS, dtype=torch.long), kind == "lora" and not bf16
    packed = ids.view(1, -1), torch.arange(TOKENS[1]).repeat(1, TOKENS[0]), torch.tensor([TOKENS[1] - 1])
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), hooks:
        train_layers.chosen_hidden(model.model, *packed, True) if ours else model.model(input_ids=ids, use_cache=False)
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("bf16", [True, False])
def test_activations_of_a_layer_are_what_autograd_keeps(kind, bf16):
    measured = (kept(kind, bf16, 3) - kept(kind, bf16, 2)) / (TOKENS[0] * TOKENS[1])
    planned = planner.layer_activations(planner.shape(TINY), train(method=kind, rank=8, packing=True), bf16)
    assert planned == pytest.approx(measured, rel=0.06)


def test_a_card_that_is_too_small_names_the_change_that_costs_least():
    model = planner.shape(QWEN_7B)
    assert planner.plan(model, train(max_length=1024), CARD, gpu=True).fits
    small = planner.plan(model, train(), 44 * planner.GIB, gpu=True)
    assert not small.fits
    assert small.changes == ("train.micro_batch_size=1",)
    assert "set train.micro_batch_size=1" in small.problem()
    assert "\n" not in small.problem()
    nf4 = planner.plan(model, train(), 16 * planner.GIB, gpu=True)
    assert "train.quantization=nf4" in nf4.changes


def test_every_change_that_is_named_does_fit():
    model = planner.shape(QWEN_7B)
    for gib in range(8, 80, 4):
        for start in (train(), train(gradient_checkpointing=True), train(quantization="int8"), train(method="full")):
            made = planner.plan(model, start, gib * planner.GIB, gpu=True)
            if made.changes:
                pairs = (change.removeprefix("train.").split("=") for change in made.changes)
                changed = start.model_copy(update={key: _value(text) for key, text in pairs})
                assert planner.plan(model, changed, gib * planner.GIB, gpu=True).fits


def _value(text: str) -> object:
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def test_nothing_fits_a_card_of_two_gib():
    assert "no setting makes it fit" in planner.plan(planner.shape(QWEN_7B), train(), 2 * planner.GIB, gpu=True).problem()


def test_real_lengths_take_less_than_the_longest():
    model, rows = planner.shape(QWEN_7B), planner.Rows(tokens=4 * 600, supervised=4 * 400, micro_batch_size=4)
    longest = planner.plan(model, train(), CARD, gpu=True).parts["activations"]
    assert planner.plan(model, train(), CARD, gpu=True, rows=rows).parts["activations"] == pytest.approx(
        longest * 600 / 2048, rel=0.01
    )


def test_weights_divided_over_four_cards_take_a_quarter_and_two_layers():
    model = planner.shape(QWEN_7B)
    alone, shared = (planner.plan(model, train(method="full"), CARD, gpu=True, devices=count).parts for count in (1, 4))
    assert shared["optimizer"] == alone["optimizer"] / 4
    assert shared["weights"] == pytest.approx(alone["weights"] / 4, rel=0.01)
    assert shared["gathered"] == 6 * (2 * model.projections / 28 + model.tables)
    assert shared["activations"] == alone["activations"]


def test_an_architecture_it_does_not_know_is_named():
    with pytest.raises(ValueError, match="not for model_type 'mamba'"):
        planner.shape({"model_type": "mamba"}, "config.json")
