"""Packing: the rows of a forward pass laid end to end, none of them sees another.

In: rows. Out: one sequence without padding, in which positions begin anew at every row; there is no mask and no cache, since
either would let a row see the one before it::

    {"input_ids": [[5, 8, 2, 5, 9, 9, 2]], "position_ids": [[0, 1, 2, 0, 1, 2, 3]], "labels": [[-100, 8, 2, -100, 9, 9, 2]]}

Attention runs over each row by itself (``by_row``): exact, and without the square mask of the whole sequence.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xinglin.engine import IGNORED
from xinglin.train.rows import Row

NAME = "xinglin_by_row"


def pack(rows: list[Row]) -> dict[str, torch.Tensor]:
    """(1, tokens) tensors of ids, positions and labels. No row predicts the first token of the next."""
    labels = [[IGNORED, *row["labels"][1:]] for row in rows]
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
        "position_ids": torch.tensor([[place for row in rows for place in range(len(row["input_ids"]))]]),
        "labels": torch.tensor([[label for row in labels for label in row]]),
    }


def by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    row_lengths: list[int],
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row; the tensors are (1, heads, tokens, size), the result is (1, tokens, heads, size)."""
    rows = zip(query.split(row_lengths, 2), key.split(row_lengths, 2), value.split(row_lengths, 2), strict=True)
    return torch.cat([sdpa_attention_forward(module, q, k, v, None, **arguments)[0] for q, k, v in rows], 1), None


def attend_by_row(base: PreTrainedModel) -> None:
    """Let a model read packed rows. Raises ``ValueError`` where its layers look through a window."""
    if "sliding_attention" in (base.config.layer_types or ()):
        raise ValueError(f"train.packing=true: {base.name_or_path} has sliding-window layers; packing=false")
    AttentionInterface.register(NAME, by_row)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    base.set_attn_implementation(NAME)


def row_lengths(position_ids: torch.Tensor) -> list[int]:
    """How long the rows of a packed sequence are, by the places where positions begin anew."""
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], position_ids.shape[1]], strict=True)]
