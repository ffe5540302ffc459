"""Exams of a recipe: find the files, ask both sides in both ways, score.

In: ``evaluate.exams`` (files, folders, hf://OWNER/NAME, halt:FILE) and two sides. Out: one entry per exam and mode, as
``exams.score`` makes it::

    {"name": "val", "mode": "chat", "row": {"metric": "accuracy", "n": 200, …}, "unparseable": {…}, "subjects": […], …}
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.config import Recipe
from xinglin.evaluate import exams as papers
from xinglin.evaluate import halt
from xinglin.evaluate.exams import Exam, Question
from xinglin.evaluate.sides import Desk, Side

HALT = "halt:"
HUB = "hf://"


def files(name: str) -> list[Path]:
    """The files behind an entry of ``evaluate.exams``."""
    return papers.files(_path(name.removeprefix(HALT)))


def _path(name: str) -> Path:
    return _from_hub(name.removeprefix(HUB)) if name.startswith(HUB) else Path(name)


def _from_hub(name: str) -> Path:
    """The folder of a data set of the Hugging Face hub (HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN are honoured)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.csv", "*.json", "*.jsonl"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ValueError(
            f"evaluate.exams: hf://{name} did not come ({type(error).__name__}); copy its files into a folder"
        ) from None


def exams(recipe: Recipe, both: tuple[Side, Side], desk: Desk) -> list[dict[str, Any]]:
    """Every exam in every mode its sides can do."""
    found = []
    for name in recipe.evaluate.exams:
        exam = paper(name, recipe.evaluate.questions, recipe.seed)
        training = list(_training_texts(recipe.folder / "3-split" / "train.jsonl"))
        found.append(_chat(exam, both, desk, papers.contaminated(exam.questions, training)))
        single = papers.single(exam)
        if single.questions and all(side.letters for side in both):
            found.append(_likelihood(single, both, desk, papers.contaminated(single.questions, training)))
    return found


def paper(name: str, most: int, seed: int) -> Exam:
    """The questions of one entry, at most ``most`` (a fixed sample); halt:FILE turns them into the hallucination test."""
    exam = papers.read(_path(name.removeprefix(HALT)))
    if name.startswith(HALT):
        return halt.build(exam, seed, max(1, most // 3))
    if len(exam.questions) <= most:
        return exam
    chosen: list[Question] = random.Random(seed).sample(exam.questions, most)
    return Exam(exam.name, chosen, [*exam.left_out, f"从 {len(exam.questions)} 题中抽取 {most} 题"])


def _training_texts(path: Path) -> Iterator[str]:
    if path.is_file():
        for record in records.iterate(path):
            yield "\n".join(turn["content"] for turn in record.messages)


def _chat(exam: Exam, both: tuple[Side, Side], desk: Desk, dirty: set[int]) -> dict[str, Any]:
    prompts = [question.prompt for question in exam.questions]
    outputs = (desk.answers(side, prompts, papers.CHAT_TOKENS, f"exam {exam.name}") for side in both)
    base, tuned = (
        [papers.read_choice(q, found["text"]) for q, found in zip(exam.questions, side, strict=True)] for side in outputs
    )
    return papers.score(exam, "chat", base, tuned, dirty)


def _likelihood(exam: Exam, both: tuple[Side, Side], desk: Desk, dirty: set[int]) -> dict[str, Any]:
    prompts = [question.prompt for question in exam.questions]
    outputs = (desk.letters(side, prompts, f"letters {exam.name}") for side in both)
    base, tuned = (
        [papers.most_likely(q, found["scores"]) for q, found in zip(exam.questions, side, strict=True)] for side in outputs
    )
    return papers.score(exam, "likelihood", list(base), list(tuned), dirty)
