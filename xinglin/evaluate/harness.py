"""Exams through lm-evaluation-harness: its task loop and scoring, our task files, and a side of the comparison as its model.

In: a side, the desk that keeps its answers, an exam. Out: what the harness says of each question, in the order of the exam::

    Marked(right=[1.0, 0.0, …], unreadable=[0.0, 0.0, …], missing={17})

Messages pass the harness as JSON and reach the engine as messages, so that the prompt is the one of ``schema.exam_messages`` and
answers are kept, and found again after a kill, in answers.jsonl like all others. Needs ``pip install 'xinglin[exams]'``.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from xinglin import schema
from xinglin.evaluate.answers import Result
from xinglin.evaluate.exams import CHAT_TOKENS, LETTERS
from xinglin.evaluate.sides import Desk, Side

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Marked:
    """Zeros and ones by question; ``missing`` holds the indices of questions the side could not be asked."""

    right: list[float]
    unreadable: list[float]
    missing: set[int]


class Candidate(LM):  # type: ignore[misc]
    """A side as a model of the harness; it sends one request for a whole task, so that batches can be sorted by length."""

    def __init__(self, side: Side, desk: Desk, exam: str) -> None:
        super().__init__()
        self.side, self.desk, self.exam = side, desk, exam
        self.missing: set[str] = set()

    @property
    def tokenizer_name(self) -> str:
        return self.side.label

    def apply_chat_template(self, chat_history: list[schema.Message], add_generation_prompt: bool = True) -> str:
        """The messages themselves; the engine puts them into the template."""
        return json.dumps(chat_history, ensure_ascii=False)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        contexts = [request.args[0] for request in requests]
        found = self.desk.answers(self.side, [json.loads(c) for c in contexts], CHAT_TOKENS, f"exam {self.exam}")
        self._note(contexts, found)
        return [one.get("text", "") for one in found]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """One request a letter. Whether the letter is the most likely token of all is not asked by multiple choice: False."""
        contexts = list(dict.fromkeys(request.args[0] for request in requests))
        found = self.desk.letters(self.side, [json.loads(c) for c in contexts], f"letters {self.exam}")
        self._note(contexts, found)
        scores = {context: one.get("scores", [0.0] * len(LETTERS)) for context, one in zip(contexts, found, strict=True)}
        return [(scores[request.args[0]][LETTERS.index(request.args[1])], False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise ValueError("exams ask for answers and letters only")

    def _note(self, contexts: Sequence[str], found: Sequence[Result]) -> None:
        self.missing |= {context for context, one in zip(contexts, found, strict=True) if "missing" in one}


def mark(side: Side, desk: Desk, mode: str, entry: str, exam: str, most: int, seed: int) -> Marked:
    """One side's exam; ``mode`` is "chat" or "likelihood", ``entry`` one of ``evaluate.exams``."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task = f"xinglin_exam_{mode}"
    metadata: dict[str, Any] = {"path": entry, "most": most, "seed": seed}
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata).load([task])
    candidate = Candidate(side, desk, exam)
    found = evaluate(
        candidate, tasks, bootstrap_iters=0, log_samples=True, system_instruction=schema.EXAM_SYSTEM, apply_chat_template=True
    )
    samples = sorted(found["samples"][task], key=lambda sample: int(sample["doc_id"]))
    missing = {index for index, sample in enumerate(samples) if sample["arguments"][0][0] in candidate.missing}
    return Marked(
        [float(sample["acc"]) for sample in samples], [float(sample.get("unparseable", 0)) for sample in samples], missing
    )
