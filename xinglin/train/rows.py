"""Rows: records as token ids with labels, batches of them, and the order they come in.

In: records of ``3-split/``. Out: ``Rows`` and the tensors of a forward pass. A row::

    {"input_ids": [1, 35, 872, …, 2], "labels": [-100, -100, 872, …, 2]}
"""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from xinglin import engine, records, schema
from xinglin.config import Recipe
from xinglin.engine import IGNORED
from xinglin.train.log import say

POOL = 50  # batches sorted by length together: wide enough to save the padding, narrow enough to mix


class Row(TypedDict):
    input_ids: list[int]
    labels: list[int]


BLANK: Row = {"input_ids": [0], "labels": [IGNORED]}  # a row that teaches nothing


@dataclass(frozen=True)
class Rows:
    """Token rows fit to train on, and how many were dropped because they are longer than ``train.max_length``.

    ``columns``: the same rows as a trainer of pairs or rewards takes them (``preference``).
    """

    rows: list[Row]
    dropped: int
    columns: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for row in self.rows for label in row["labels"])


def sample(rows: list[records.Record], recipe: Recipe) -> list[records.Record]:
    """At most ``train.rows`` of the rows, the same ones under the same seed."""
    limit = recipe.train.rows
    return random.Random(recipe.seed).sample(rows, limit) if 0 < limit < len(rows) else rows


def tokenize(
    rows: Sequence[records.Record],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    prompt: Callable[[str, Sequence[schema.Message]], list[schema.Message]] = schema.messages,
) -> Rows:
    """Encode records with every assistant turn supervised; a row over ``max_length`` tokens is dropped, never cut."""
    fitting: list[Row] = []
    for record in tqdm(rows, desc="Map", unit=" rows", file=sys.stderr, mininterval=2):
        dialogue = [*prompt(record.question, record.history), {"role": "assistant", "content": record.answer.strip()}]
        ids, labels = engine.encode_row(tokenizer, dialogue)
        if len(ids) <= max_length:
            fitting.append({"input_ids": ids, "labels": labels})
    return Rows(fitting, len(rows) - len(fitting))


def texts(rows: Sequence[records.Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Records as plain text, without template or roles: every token is supervised, a long text goes on in the next row."""
    made: list[Row] = []
    for record in tqdm(rows, desc="Map", unit=" rows", file=sys.stderr, mininterval=2):
        text = "\n".join(turn["content"].strip() for turn in record.messages)
        ids = [*engine.encode_text(tokenizer, text), tokenizer.eos_token_id]
        parts = [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
        made += [
            {"input_ids": part, "labels": [IGNORED, *part[1:]]} for part in parts if len(part) > 1
        ]  # the first follows nothing
    return Rows(made, 0)


def replay(rows: Rows, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """The rows with general ones of ``train.replay`` behind them, under the model's own system text, not ours."""
    if recipe.train.replay is None:
        return rows
    path, share = recipe.train.replay.file, recipe.train.replay.share
    read = [row for row in records.read(path) if isinstance(row, records.Record)]
    if not read:
        raise ValueError(f"train.replay: {path} has no row with question and answer")
    wanted = round(len(rows.rows) * share / (1 - share))
    chosen = random.Random(recipe.seed).sample(read, min(wanted, len(read)))
    length = recipe.train.max_length
    if recipe.train.objective == "pretrain":
        general = texts(chosen, tokenizer, length)
    else:
        general = tokenize(chosen, tokenizer, length, _as_asked)
    total = len(rows.rows) + len(general.rows)
    say(f"train: {len(general.rows)} general rows of {path} mixed in, {len(general.rows) / total:.1%} of {total}")
    if wanted > len(read):
        say(f"train: a share of {share:g} needs {wanted} general rows, {path} has {len(read)}")
    return Rows(rows.rows + general.rows, rows.dropped + general.dropped)


def _as_asked(question: str, history: Sequence[schema.Message]) -> list[schema.Message]:
    return [*history, {"role": "user", "content": question}]


def check(train: Rows, recipe: Recipe) -> None:
    """Raise ``ValueError`` where there is nothing to learn from."""
    say(f"train: {len(train.rows) + train.dropped} rows read, {train.dropped} over {recipe.train.max_length} tokens dropped")
    if not train.rows and not train.dropped:
        raise ValueError(
            f"train: {recipe.folder / '3-split' / 'train.jsonl'} holds no row to learn from; `xinglin split` writes it"
        )
    if not train.rows:
        raise ValueError(f"train: none of {train.dropped} rows fits train.max_length={recipe.train.max_length}; raise it")
    lengths = sorted(len(row["input_ids"]) for row in train.rows)
    say(f"train: {train.tokens} tokens, {train.supervised} supervised; row lengths {describe_lengths(lengths)}")
    say(length_table(lengths, recipe.train.max_length, train.dropped))
    least = 2 if recipe.train.objective == "sft" else 1  # an end token alone is no answer
    empty = sum(sum(label != IGNORED for label in row["labels"]) < least for row in train.rows)
    if empty:
        raise ValueError(
            f"train: {empty} rows of 3-split/train.jsonl have an empty answer; remove them, or let `xinglin clean` do it"
        )


def describe_lengths(lengths: Sequence[int]) -> str:
    """Percentiles of sorted lengths in tokens."""
    return ", ".join(f"p{share} {lengths[min(len(lengths) - 1, len(lengths) * share // 100)]}" for share in (5, 50, 95, 100))


def length_table(lengths: Sequence[int], longest: int, dropped: int) -> str:
    """How many rows are how long, in eighths of ``train.max_length``, and how many were too long."""
    step = math.ceil(longest / 8)
    counts = Counter((length - 1) // step for length in lengths)
    lines = [f"{part * step + 1:>6} - {min((part + 1) * step, longest):<6}{counts[part]:>9}" for part in range(max(counts) + 1)]
    return "\n".join(
        ["tokens in a row    rows", *lines, *([f"{'over ' + str(longest):>15}{dropped:>9} dropped"] if dropped else [])]
    )


def show_first(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the first row as the model sees it, what is supervised between ⟦ and ⟧."""
    text, inside = "", False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if (label != IGNORED) != inside:
            inside = not inside
            text += "⟦" if inside else "⟧"
        text += f"\0{token}\0"
    parts = (text + "⟧" * inside).replace("\0\0", " ").split("\0")
    shown = "".join(str(tokenizer.decode([*map(int, part.split())])) if i % 2 else part for i, part in enumerate(parts))
    say(f"train: first row, supervised text in ⟦⟧:\n{shown}")


def collate(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded (rows, longest) tensors of ids, mask and labels."""
    width = max(len(row["input_ids"]) for row in rows)
    fill = [width - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [pad] * n for row, n in zip(rows, fill, strict=True)]),
        "attention_mask": torch.tensor([[1] * (width - n) + [0] * n for n in fill]),
        "labels": torch.tensor([row["labels"] + [IGNORED] * n for row, n in zip(rows, fill, strict=True)]),
    }


class LengthBuckets(Sampler[int]):
    """Row numbers of one epoch: rows of like length share a forward pass, the passes come in random order.

    The order depends on seed and epoch alone, so that a resumed run meets the same batches. A short last batch stays last.
    Several processes take the batches in turn: there the epoch is filled up with the number behind the last row (``BLANK``), so
    that every process has as many batches and no row comes twice.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, processes: int = 1) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0
        self.blanks = -len(lengths) % (batch * processes) if processes > 1 else 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.blanks

    def __iter__(self) -> Iterator[int]:
        random_ = random.Random(f"{self.seed}/{self.epoch}")
        rows = random_.sample(range(len(self.lengths)), len(self.lengths))
        pool = self.batch * POOL
        ordered = [
            row for start in range(0, len(rows), pool) for row in sorted(rows[start : start + pool], key=self.lengths.__getitem__)
        ]
        batches = [ordered[start : start + self.batch] for start in range(0, len(ordered), self.batch)]
        short = [batches.pop()] if len(batches[-1]) < self.batch else []
        random_.shuffle(batches)
        return iter([row for batch in [*batches, *short] for row in batch] + [len(self.lengths)] * self.blanks)
