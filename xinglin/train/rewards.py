"""Rewards: how good an answer is that the model wrote while it trains (``train.objective: grpo``).

In: the answers of a step, and the columns of their rows. Out: for each answer a number from 0 to 1, or None where a reward does
not apply to its row::

    complete(completions=[[{"role": "assistant", "content": answer}]], choice=[""])    [1.0]
"""

from collections.abc import Sequence
from typing import Any

from xinglin import schema
from xinglin.choice import extract_choice
from xinglin.safety import faithfulness
from xinglin.schema import Message

LETTERS = "ABCDEFGH"
Completions = Sequence[Sequence[Message]]


def complete(completions: Completions, choice: Sequence[str], **_: Any) -> list[float | None]:
    """1 for an answer complete in three sections, 1/2 with one fault, 1/3 with two."""
    texts = [completion[-1]["content"] for completion in completions]
    return [None if right else _share(len(schema.check(text))) for text, right in zip(texts, choice, strict=True)]


def faithful(
    completions: Completions, question: Sequence[str], reference: Sequence[str], choice: Sequence[str], **_: Any
) -> list[float | None]:
    """1 for an answer with no drug, number, result or certainty that neither question nor reference has, 1/2 with one, …"""
    rows = zip(completions, question, reference, choice, strict=True)
    return [None if right else _share(_brought_in(asked, known, said[-1]["content"])) for said, asked, known, right in rows]


def _brought_in(question: str, reference: str, answer: str) -> int:
    return sum(finding.kind.startswith("new ") for finding in faithfulness.check(question, reference, answer))


def right_choice(completions: Completions, choice: Sequence[str], **_: Any) -> list[float | None]:
    """1 for the right letters of an exam question, 0 for others or none."""
    rows = zip(completions, choice, strict=True)
    return [float(extract_choice(said[-1]["content"], LETTERS) == right) if right else None for said, right in rows]


def _share(faults: int) -> float:
    return 1 / (1 + faults)
