"""Packing: the rows of a forward pass laid end to end, their common beginning once; none of them sees another.

In: rows. Out: one sequence without padding. Rows begin with the same system prompt, and what a causal model computes there does
not depend on what follows: it stands once, before the first row, and the positions of the others go on from its end. There is no
mask and no cache, since either would let a row see the one before it. Two rows that share their first two tokens::

    {"input_ids": [[5, 8, 3, 2, 9, 9, 2]], "position_ids": [[0, 1, 2, 3, 2, 3, 4]], "labels": [[-100, -100, -100, 2, -100, 9, 2]]}

Attention runs over each row by itself, behind the common beginning (``by_row``): exact, and without the square mask of the whole.
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
    common = shared(rows)
    starts = [0, *[common] * (len(rows) - 1)]
    labels = [[IGNORED, *row["labels"][start + 1 :]] for row, start in zip(rows, starts, strict=True)]
    return {
        "input_ids": torch.tensor(
            [[token for row, start in zip(rows, starts, strict=True) for token in row["input_ids"][start:]]]
        ),
        "position_ids": torch.tensor(
            [[place for row, start in zip(rows, starts, strict=True) for place in range(start, len(row["input_ids"]))]]
        ),
        "labels": torch.tensor([[label for row in labels for label in row]]),
    }


def shared(rows: list[Row]) -> int:
    """How many tokens all rows begin with; those before a supervised token are left to their row, since they predict it."""
    if len(rows) == 1:
        return 0
    own = max(0, min(_before_supervised(row["labels"]) for row in rows))
    columns = zip(*(row["input_ids"][:own] for row in rows), strict=True)
    return next((place for place, tokens in enumerate(columns) if len(set(tokens)) > 1), own)


def _before_supervised(labels: list[int]) -> int:
    return next((place for place, label in enumerate(labels) if label != IGNORED), len(labels)) - 1


def by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    row_lengths: list[int],
    common: int,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row; the tensors are (1, heads, tokens, size), the result is (1, tokens, heads, size)."""
    first, *others = zip(*(part.split(row_lengths, 2) for part in (query, key, value)), strict=True)
    found = [sdpa_attention_forward(module, first[0], first[1], first[2], None, **arguments)[0]]
    before = [part[:, :, :common] for part in first]
    for row in others:
        q, k, v = (torch.cat(parts, 2) for parts in zip(before, row, strict=True))
        found.append(sdpa_attention_forward(module, q, k, v, None, **arguments)[0][:, common:])
    return torch.cat(found, 1), None


def attend_by_row(base: PreTrainedModel) -> None:
    """Let a model read packed rows. Raises ``ValueError`` where its layers look through a window."""
    values = base.config.to_dict()
    windowed = values.get("layer_types") or ["sliding_attention" if values.get("sliding_window") else "full_attention"]
    if "sliding_attention" in windowed:
        raise ValueError(f"train.packing=true: {base.name_or_path} has sliding-window layers; packing=false")
    AttentionInterface.register(NAME, by_row)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    base.set_attn_implementation(NAME)


def layout(position_ids: torch.Tensor) -> dict[str, Any]:
    """What ``by_row`` needs to know of a packed sequence: the lengths of its parts and of the common beginning."""
    places = position_ids[0]
    breaks = (places[1:] != places[:-1] + 1).nonzero().flatten().tolist()
    starts = [0, *(place + 1 for place in breaks)]
    lengths = [end - start for start, end in zip(starts, [*starts[1:], len(places)], strict=True)]
    return {"row_lengths": lengths, "common": int(places[starts[1]]) if breaks else 0}
