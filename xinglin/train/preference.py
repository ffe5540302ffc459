"""Preference rows: what DPO, ORPO, KTO and GRPO learn from.

In: records of ``3-split/`` whose ``meta`` may hold, beside the answer of the last turn::

    {"rejected": "多喝热水就好。"}      a worse answer to the same dialogue        DPO, ORPO, KTO
    {"label": false}                    whether the answer is a good one           KTO
    {"choice": "B"}                     the right letters of an exam question      GRPO

A row without ``rejected`` has as its worse answer the one it had before it was rewritten (``1-clean/records.jsonl``), where that
is another. Out: ``Rows`` of the better answers, and in ``columns`` the same rows as TRL's trainers take them::

    {"prompt_ids": [1, 35, …], "chosen_ids": [872, …, 2], "rejected_ids": [640, …, 2]}
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from xinglin import engine, records, schema
from xinglin.config import Recipe
from xinglin.engine import IGNORED
from xinglin.records import Record
from xinglin.schema import Message
from xinglin.train.log import say
from xinglin.train.rows import Row, Rows

OBJECTIVES = ("dpo", "kto", "orpo", "grpo")


def originals(recipe: Recipe) -> Path:
    return recipe.folder / "1-clean" / "records.jsonl"


def read(rows: Sequence[Record], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """Rows of the recipe's objective; what is over ``train.max_length`` or lacks what the objective needs is left out."""
    if recipe.train.objective == "grpo":
        return prompts(rows, tokenizer, recipe.train.max_length)
    path = originals(recipe)
    before = {record.id: record.answer for record in records.iterate(path)} if path.is_file() else {}
    make = marked if recipe.train.objective == "kto" else pairs
    return make(rows, before, tokenizer, recipe)


def pairs(rows: Sequence[Record], before: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """A better and a worse answer to the same prompt."""
    both = [(record, worse) for record in rows if (worse := rejected(record, before))]
    _refuse_none(both, rows, recipe, 'a worse answer in meta: {"rejected": …}')
    found, columns = [], []
    for record, worse in both:
        prompt = schema.messages(record.question, record.history)
        begin, better = completion(tokenizer, prompt, record.answer)
        _, other = completion(tokenizer, prompt, worse)
        if len(begin) + max(len(better), len(other)) <= recipe.train.max_length:
            found.append(row(begin, better))
            columns.append({"prompt_ids": begin, "chosen_ids": better, "rejected_ids": other})
    return Rows(found, len(both) - len(found), columns)


def marked(rows: Sequence[Record], before: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """Answers marked good or bad, in an order of the seed; of a pair, the better is good and the worse bad."""
    said = [found for record in rows for found in _labelled(record, before)]
    _refuse_none([one for one in said if not one[2]], rows, recipe, 'a bad answer in meta: {"rejected": …} or {"label": false}')
    random.Random(recipe.seed).shuffle(said)
    columns: list[dict[str, Any]] = []
    for record, answer, good in said:
        begin, ids = completion(tokenizer, schema.messages(record.question, record.history), answer)
        if len(begin) + len(ids) <= recipe.train.max_length:
            columns.append({"prompt_ids": begin, "completion_ids": ids, "label": good})
    _mismatch(columns, recipe.train.micro_batch_size)
    found = [row(one["prompt_ids"], one["completion_ids"]) for one in columns]
    return Rows(found, len(said) - len(found), columns)


def _labelled(record: Record, before: Mapping[str, str]) -> Iterator[tuple[Record, str, bool]]:
    yield record, record.answer, bool(record.meta.get("label", True))
    if "label" not in record.meta and (worse := rejected(record, before)):
        yield record, worse, False


def _mismatch(columns: list[dict[str, Any]], batch: int) -> None:
    """Give every row the answer of the row before it in its forward pass: KTO measures its distance from the base on those."""
    for start in range(0, len(columns), batch):
        part = columns[start : start + batch]
        for place, one in enumerate(part):
            one["KL_completion_ids"] = part[place - 1]["completion_ids"]


def prompts(rows: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Prompts to answer; half of ``max_length`` is for the prompt, half for the answer."""
    found, columns = [], []
    for record in rows:
        choice = str(record.meta.get("choice", ""))
        asked = schema.messages(record.question, record.history)
        if choice:
            asked = [{"role": "system", "content": schema.EXAM_SYSTEM}, {"role": "user", "content": record.question}]
        begin, answer = completion(tokenizer, asked, record.answer)
        if len(begin) <= max_length // 2:
            found.append(row(begin, answer))
            columns.append({"prompt": asked, "question": record.question, "reference": record.answer, "choice": choice})
    return Rows(found, len(rows) - len(found), columns)


def rejected(record: Record, before: Mapping[str, str]) -> str:
    """The worse answer of a row, or nothing."""
    worse = str(record.meta.get("rejected") or before.get(record.id, ""))
    return worse if worse.strip() != record.answer.strip() else ""


def completion(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of its answer up to the end token."""
    begin = engine.encode(tokenizer, prompt)
    ids, _ = engine.encode_row(tokenizer, [*prompt, {"role": "assistant", "content": answer.strip()}])
    assert ids[: len(begin)] == begin, "the chat template writes the prompt otherwise before an answer than alone"
    last = len(ids) - 1 - ids[::-1].index(tokenizer.eos_token_id)
    return begin, ids[len(begin) : last + 1]


def row(prompt: list[int], answer: list[int]) -> Row:
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def _refuse_none(found: Sequence[Any], rows: Sequence[Record], recipe: Recipe, needed: str) -> None:
    if rows and not found:
        raise ValueError(
            f"train.objective={recipe.train.objective}: none of {len(rows)} rows has {needed}, "
            f"nor another answer in {originals(recipe)}"
        )
    say(f"train: {len(rows)} rows read, {len(found)} with {needed.split(' in meta')[0]}")
