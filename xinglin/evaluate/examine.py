"""Exams of a recipe: both sides sit each one in both ways, through lm-evaluation-harness.

In: ``evaluate.exams`` (papers.py says what an entry can be) and two sides. Out: one entry per exam and mode, as ``exams.score``
makes it::

    {"name": "cmexam/val", "mode": "chat", "row": {"metric": "accuracy", "n": 200, …}, "unparseable": {…}, "subjects": […], …}
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.config import Recipe
from xinglin.evaluate import exams as scoring
from xinglin.evaluate import papers
from xinglin.evaluate.sides import Desk, Side


def inputs(recipe: Recipe) -> list[Path]:
    """The files of all exams. Raises ``ValueError`` where one is missing, or the harness is."""
    if recipe.evaluate.exams and not find_spec("lm_eval"):
        raise ValueError("evaluate.exams needs lm-evaluation-harness: pip install 'xinglin[exams]'")
    return [file for entry in recipe.evaluate.exams for file in papers.files(entry)]


def exams(recipe: Recipe, both: tuple[Side, Side], desk: Desk) -> list[dict[str, Any]]:
    """Every exam in both modes; questions with several right options in chat only."""
    training = list(_training_texts(recipe.folder / "3-split" / "train.jsonl")) if recipe.evaluate.exams else []
    found = []
    for entry in recipe.evaluate.exams:
        exam = papers.paper(entry, recipe.evaluate.questions, recipe.seed)
        modes = {"chat": exam, "likelihood": scoring.single(exam)}
        found += [_sit(recipe, both, desk, entry, mode, part, training) for mode, part in modes.items() if part.questions]
    return found


def _training_texts(path: Path) -> Iterator[str]:
    if path.is_file():
        for record in records.iterate(path):
            yield "\n".join(turn["content"] for turn in record.messages)


def _sit(
    recipe: Recipe, both: tuple[Side, Side], desk: Desk, entry: str, mode: str, exam: scoring.Exam, training: list[str]
) -> dict[str, Any]:
    from xinglin.evaluate import harness  # half a minute of imports on a slow disk, only where there is an exam

    base, tuned = (harness.mark(side, desk, mode, entry, exam.name, recipe.evaluate.questions, recipe.seed) for side in both)
    exam, kept = scoring.without(exam, base.missing | tuned.missing)
    right = [base.right[index] for index in kept], [tuned.right[index] for index in kept]
    unreadable = [base.unreadable[index] for index in kept], [tuned.unreadable[index] for index in kept]
    return scoring.score(exam, mode, right, unreadable, scoring.contaminated(exam.questions, training))
