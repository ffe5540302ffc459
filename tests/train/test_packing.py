"""A packed row is learnt from as if it stood alone."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from xinglin import config, engine
from xinglin.train import model as train_model
from xinglin.train import packing
from xinglin.train import rows as train_rows

LENGTHS = [40, 77, 2, 130]
BEGINNING = list(range(100, 130))  # as a system prompt, the same before every row
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def made_rows(supervised_from: int = 1, common: int = 0) -> list[train_rows.Row]:
    random = torch.Generator().manual_seed(3)
    ids = [BEGINNING[:common] + torch.randint(10, 4000, (length,), generator=random).tolist() for length in LENGTHS]
    return [{"input_ids": row, "labels": [engine.IGNORED] * supervised_from + row[supervised_from:]} for row in ids]


def losses_by_row(hidden: torch.Tensor, targets: torch.Tensor, rows: list[train_rows.Row]) -> torch.Tensor:
    counts = [sum(label != engine.IGNORED for label in row["labels"][1:]) for row in rows]
    each = cross_entropy(hidden.float(), targets, reduction="none").split(counts)
    return torch.stack([part.mean() for part in each])


def alone(base: engine.PreTrainedModel, rows: list[train_rows.Row], device: str) -> torch.Tensor:
    found = [
        engine.supervised(
            base, torch.tensor([row["input_ids"]], device=device), None, torch.tensor([row["labels"]], device=device)
        )
        for row in rows
    ]
    return torch.stack([cross_entropy(hidden.float(), targets) for hidden, targets in found])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("common", [0, 30])
@torch.no_grad()
def test_every_packed_row_has_the_loss_it_has_alone(tiny, device, common):
    rows = made_rows(common + 1, common)
    base = engine.load_base(tiny).float().to(device)
    expected = alone(base, rows, device)
    packing.attend_by_row(base)
    batch = {key: value.to(device) for key, value in packing.pack(rows).items()}
    found = losses_by_row(
        *engine.supervised(
            base, batch["input_ids"], None, batch["labels"], position_ids=batch["position_ids"],
            **packing.layout(batch["position_ids"]),
        ), rows,
    )  # fmt: skip
    assert (found - expected).abs().max().item() <= 1e-5


@torch.no_grad()
def test_what_contaminates_silently_would_be_seen(tiny):
    """A mask of ones, a cache left on, or no positions: why ``pack`` gives no mask and ``supervised`` asks for no cache."""
    rows = made_rows()
    base = engine.load_base(tiny).float()
    expected, batch = alone(base, rows, "cpu"), packing.pack(rows)
    ones = torch.ones_like(batch["input_ids"])
    ways = {
        "ones": {"attention_mask": ones, "position_ids": batch["position_ids"], "use_cache": False},
        "cache": {"position_ids": batch["position_ids"]},
        "no positions": {"use_cache": False},
    }
    for name, arguments in ways.items():
        hidden = base.model(input_ids=batch["input_ids"], **arguments).last_hidden_state[:, :-1]
        targets = batch["labels"][:, 1:]
        chosen = targets != engine.IGNORED
        found = losses_by_row(base.lm_head(hidden[chosen]), targets[chosen], rows)
        assert (found - expected).abs().max().item() > 1e-4, name


def test_what_all_rows_begin_with_stands_once():
    rows = made_rows(31, 30)
    batch = packing.pack(rows)
    assert batch["input_ids"].shape[1] == sum(LENGTHS) + 30
    assert packing.layout(batch["position_ids"]) == {"row_lengths": [70, 77, 2, 130], "common": 30}
    assert (batch["labels"] != engine.IGNORED).sum() == sum(label != engine.IGNORED for row in rows for label in row["labels"])
    assert packing.shared(rows[:1]) == 0


def test_equal_questions_leave_what_predicts_the_answers_to_each_row():
    same = {"input_ids": [5, 6, 7, 8], "labels": [engine.IGNORED, engine.IGNORED, 7, 8]}
    assert packing.shared([same, same]) == 1
    whole = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}
    other = {"input_ids": [5, 6, 9, 8], "labels": [5, 6, 9, 8]}
    assert packing.shared([whole, other]) == 0


@pytest.mark.parametrize(("supervised_from", "common"), [(0, 0), (1, 0), (20, 0), (31, 30), (40, 30), (10, 30)])
def test_the_gradients_of_a_packed_and_a_padded_pass_are_the_same(tiny, tokenizer, supervised_from, common):
    rows = [row for row in made_rows(supervised_from, common) if len(row["input_ids"]) > supervised_from + 1]
    gradients = []
    for packed in (False, True):
        recipe = config.build({"model": str(tiny), "train": {"packing": packed, "method": "full"}})
        model = train_model.add_adapter(engine.load_base(tiny), recipe)
        batch = packing.pack(rows) if packed else train_rows.collate(rows, tokenizer.pad_token_id)
        model(**batch).loss.backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max().item() <= 1e-6
    assert gradients[0].abs().max().item() > 1e-4
