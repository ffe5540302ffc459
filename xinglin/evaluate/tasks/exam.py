"""Functions of the two task files beside it, for lm-evaluation-harness: any exam file Xinglin reads, the prompt Xinglin asks.

In: ``--metadata '{"path": "cmexam/val.json"}'``. Out: documents such as::

    {"prompt": "不属于第二信使的物质是\\nA. cAMP\\n…\\n答案：", "letters": ["A", "B", "C", "D"], "answer": "D", "gold": 3}

    lm_eval --model hf --model_args pretrained=MODEL --include_path xinglin/evaluate/tasks --tasks xinglin_exam_likelihood \
        --apply_chat_template --system_instruction "$(python -c 'from xinglin.schema import EXAM_SYSTEM; print(EXAM_SYSTEM)')" \
        --metadata '{"path": "cmexam/val.json"}'
"""

from pathlib import Path
from typing import Any

from xinglin.evaluate import exams
from xinglin.evaluate.choice import extract_choice


def documents(path: str, kind: str = "likelihood", most: int = 0, **_: Any) -> dict[str, Any]:
    """The questions as a data set with one split; likelihood scores those with one right option."""
    from datasets import Dataset

    exam = exams.read(Path(path))
    questions = exams.single(exam).questions if kind == "likelihood" else exam.questions
    return {"test": Dataset.from_list([document(question) for question in questions[: most or None]])}


def document(question: exams.Question) -> dict[str, Any]:
    letters = list(question.options)
    gold = letters.index(question.answer) if len(question.answer) == 1 else -1
    return {"prompt": question.prompt[-1]["content"], "letters": letters, "answer": question.answer, "gold": gold}


def chosen(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores of one chat answer; what cannot be read is wrong, and counted."""
    found = extract_choice(results[0], document["letters"])
    return {"acc": float(found == document["answer"]), "unparseable": float(found is None)}
