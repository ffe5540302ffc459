"""Functions of the task files beside it, for lm-evaluation-harness: any exam Xinglin reads, the prompt Xinglin asks.

In: ``--metadata``: a path for the tasks xinglin_exam_chat and xinglin_exam_likelihood, or one for each of cmb, cmexam, cmmlu,
ceval and medqa_zh for xinglin_cmb_chat, xinglin_cmb_likelihood and so on; ``most`` and ``seed`` take a sample. Out: documents
such as::

    {"prompt": "不属于第二信使的物质是\\nA. cAMP\\n…\\n答案：", "letters": ["A", "B", "C", "D"], "answer": "D", "gold": 3}

    lm_eval --model hf --model_args pretrained=MODEL --include_path xinglin/evaluate/tasks --apply_chat_template \
        --system_instruction "$(python -c 'from xinglin.schema import EXAM_SYSTEM; print(EXAM_SYSTEM)')" \
        --tasks xinglin_cmexam_chat,xinglin_cmexam_likelihood --metadata '{"cmexam": "cmexam/val.json"}'
"""

from typing import Any

from xinglin.choice import extract_choice
from xinglin.evaluate import exams, papers


def documents(kind: str, exam: str = "path", most: int = 0, seed: int = 42, **given: Any) -> dict[str, Any]:
    """The questions as a data set with one split; likelihood scores those with one right option."""
    from datasets import Dataset

    if exam not in given:
        raise ValueError(f"""this task needs --metadata '{{"{exam}": "FILE or FOLDER"}}'""")
    paper = papers.paper(given[exam], most, seed)
    questions = exams.single(paper).questions if kind == "likelihood" else paper.questions
    return {"test": Dataset.from_list([document(question) for question in questions])}


def document(question: exams.Question) -> dict[str, Any]:
    letters = list(question.options)
    gold = letters.index(question.answer) if len(question.answer) == 1 else -1
    return {"prompt": question.prompt[-1]["content"], "letters": letters, "answer": question.answer, "gold": gold}


def chosen(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores of one chat answer; what cannot be read is wrong, and counted."""
    found = extract_choice(results[0], document["letters"])
    return {"acc": float(found == document["answer"]), "unparseable": float(found is None)}
