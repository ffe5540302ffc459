"""Our layers on packed rows against transformers' and PEFT's own on padded ones: the same loss, the same gradients."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from xinglin import config, engine
from xinglin.train import layers, packing
from xinglin.train import model as train_model
from xinglin.train import rows as train_rows

SHAPE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
         "vocab_size": 4096, "pad_token_id": 0, "initializer_range": 0.05}  # fmt: skip
KINDS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, lambda **shape: Qwen3Config(**shape, head_dim=24)),
    "llama": (LlamaForCausalLM, LlamaConfig),
}
# Supervised stretches of a row, as shares of its length: the end, two turns, all of it, one token.
SPANS = {"answer": [(0.6, 1.0)], "turns": [(0.4, 0.5), (0.8, 1.0)], "all": [(0.0, 1.0)], "token": [(0.5, 0.5)]}


def made_rows(spans: str, common: int, lengths=(40, 77, 3, 300)) -> list[train_rows.Row]:
    random = torch.Generator().manual_seed(3)
    made: list[train_rows.Row] = []
    for length in lengths:
        ids = list(range(100, 100 + common)) + torch.randint(10, 4000, (length,), generator=random).tolist()
        labels = [engine.IGNORED] * len(ids)
        for first, last in SPANS[spans]:
            places = slice(max(int(first * len(ids)), 0 if spans == "all" else common + 1), int(last * len(ids)) + 1)
            labels[places] = ids[places]
        made.append({"input_ids": ids, "labels": labels})
    return made


def made_model(kind: str, packed: bool, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    model, shape = KINDS[kind]
    values = {"rank": 4, "alpha": 12, "packing": packed, **settings}
    tuned = train_model.add_adapter(model(shape(**SHAPE)), config.build({"model": "demo", "train": values}))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return tuned.train()


def learnt(model: torch.nn.Module, rows: list[train_rows.Row], packed: bool) -> tuple[float, dict[str, torch.Tensor]]:
    batch = packing.pack(rows) if packed else train_rows.collate(rows, 0)
    items = max(1, sum(label != engine.IGNORED for row in rows for label in row["labels"][1:]))
    loss = model(**batch, num_items_in_batch=torch.tensor(items)).loss
    loss.backward()
    return loss.item(), {name: part.grad for name, part in model.named_parameters() if part.requires_grad}


def compare(kind: str, rows: list[train_rows.Row], **settings) -> None:
    loss, gradients = learnt(made_model(kind, True, **settings), rows, True)
    plain, expected = learnt(made_model(kind, False, **settings), rows, False)
    assert loss == pytest.approx(plain, abs=2e-6)
    largest = max(value.abs().max().item() for value in expected.values())
    assert largest > 1e-2
    for name, value in expected.items():
        # Rounding of fp32: where one token alone makes gradients of 0.7, the plain path is 1.3e-6 from one in fp64, ours 1.0e-6.
        assert (gradients[name] - value).abs().max().item() <= 1e-6 + 2e-6 * largest, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("common", [0, 30])
@pytest.mark.parametrize("spans", SPANS)
def test_loss_and_gradients_are_those_of_the_plain_path(kind, common, spans):
    compare(kind, made_rows(spans, common))


@pytest.mark.parametrize("added", [True, False])
def test_the_adapter_added_to_the_weights_and_beside_them_are_the_same(monkeypatch, added):
    monkeypatch.setattr(layers, "_worth_adding", lambda *_: added)
    compare("qwen2", made_rows("answer", 30))


@pytest.mark.parametrize("method", ["rslora", "pissa", "dora", "full"])
def test_every_method_learns_what_it_learns_from_padded_rows(method):
    compare("qwen2", made_rows("turns", 30), method=method)


def test_layers_computed_again_give_the_same_gradients():
    rows, found = made_rows("turns", 30), []
    for again in (False, True):
        model = made_model("qwen2", True)
        if again:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda part, kept=kept: kept.append(part.nbytes) or part, lambda part: part
        ):
            learnt(model, rows, True)
        found.append((sum(kept), {name: part.grad for name, part in model.named_parameters() if part.requires_grad}))
    (all_kept, first), (few_kept, second) = found
    assert few_kept < all_kept / 4
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_row_that_teaches_nothing_has_a_gradient_of_nought():
    model = made_model("qwen2", True)
    loss, gradients = learnt(model, [train_rows.BLANK, train_rows.BLANK], True)
    assert loss == 0
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())


def test_the_last_layer_attends_from_the_supervised_stretch_on():
    made = layers.needed_queries(torch.tensor([7, 8, 12, 13]), [9, 5], 4)
    assert made.parts == [
        layers.Part((0, 2), (7, 9), True), layers.Part((0, 2), (0, 7), False), layers.Part((2, 4), (12, 14), True),
        layers.Part((2, 4), (9, 12), False), layers.Part((2, 4), (0, 4), False),
    ]  # fmt: skip
    assert made.places.tolist() == [7, 8, 12, 13]
    assert made.kept.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", list(KINDS))
def test_as_on_a_card_in_bf16(kind: str) -> None:
    """Base in bf16, adapter in fp32, under autocast: what a GPU computes, to the precision of bf16."""
    found = []
    for packed in (True, False):
        torch.manual_seed(0)
        model, shape = KINDS[kind]
        values = {"rank": 4, "alpha": 12, "packing": packed}
        tuned = train_model.add_adapter(model(shape(**SHAPE)).bfloat16(), config.build({"model": "demo", "train": values}))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(learnt(tuned.train(), made_rows("answer", 20), packed))
    (loss, gradients), (plain, expected) = found
    assert loss == pytest.approx(plain, rel=0.01)
    assert {part.dtype for part in gradients.values()} == {torch.float32}
    own, other = (torch.cat([part.flatten() for part in each.values()]) for each in (gradients, expected))
    assert torch.nn.functional.cosine_similarity(own, other, 0) > 0.99
