"""Is our exam score lm-evaluation-harness's own? The same model, questions and prompt, prediction by prediction.

Needs shared/ beside the repository and bench/peers/lm-eval.sh. Likelihood: the letter chosen and its log-probability. Chat: the
text of every greedy answer. Prints a table and writes bench/results/exams.json.

    python bench/exams.py [MODEL]
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

from xinglin.engine import Engine
from xinglin.evaluate import exams

ROOT = Path(__file__).resolve().parents[1]
PAPERS = {"ceval/val": 90, "cmmlu/test": 300, "cmexam/val.json": 300}


def harness(task: str, model: str, paper: Path, most: int) -> dict[str, Any]:
    """Predictions of lm-evaluation-harness in its own environment, with our task file."""
    command = [".peers/lm-eval/bin/python", "bench/peers/lm_eval_exam.py", f"xinglin_exam_{task}", model, str(paper), str(most)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def batches(questions: list[exams.Question], size: int = 16) -> list[list[exams.Question]]:
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def likelihood(engine: Engine, questions: list[exams.Question], rows: list[dict[str, Any]]) -> dict[str, float]:
    ours = [scores for batch in batches(questions) for scores in engine.first_tokens([q.prompt for q in batch], exams.LETTERS)]
    theirs = [[score for score, _ in row["outputs"]] for row in rows]
    same = [
        max(range(len(b)), key=b.__getitem__) == max(range(len(b)), key=a.__getitem__) for a, b in zip(ours, theirs, strict=True)
    ]
    apart = max(abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=False))
    right = sum(exams.most_likely(q, scores) == q.answer for q, scores in zip(questions, ours, strict=True))
    return {"same": sum(same), "largest_difference": apart, "accuracy": right / len(questions)}


def chat(engine: Engine, questions: list[exams.Question], rows: list[dict[str, Any]]) -> dict[str, float]:
    texts = [
        r.text
        for batch in batches(questions)
        for r in engine.complete([q.prompt for q in batch], max_new_tokens=exams.CHAT_TOKENS)
    ]
    same = sum(mine.strip() == row["outputs"][0].strip() for mine, row in zip(texts, rows, strict=True))
    right = sum(exams.read_choice(q, text) == q.answer for q, text in zip(questions, texts, strict=True))
    return {"same": same, "accuracy": right / len(questions)}


def main(model: str) -> None:
    engine, results = Engine.load(model), []
    for name, most in PAPERS.items():
        paper = ROOT.parent / "shared" / "data" / name
        for task, ours in (("likelihood", likelihood), ("chat", chat)):
            exam = exams.read(paper)
            questions = (exams.single(exam) if task == "likelihood" else exam).questions[:most]
            started = time.monotonic()
            theirs = harness(task, model, paper, most)
            between = time.monotonic()
            assert [row["prompt"] for row in theirs["rows"]] == [question.prompt[-1]["content"] for question in questions]
            row = {"exam": name, "mode": task, "questions": len(questions), **ours(engine, questions, theirs["rows"])}
            row |= {
                "accuracy_harness": theirs["acc"],
                "seconds": time.monotonic() - between,
                "seconds_harness": between - started,
            }
            results.append(row)
            print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
            common.save("exams", {"model": Path(model).name, "rows": results})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "xinglin" / "demo" / "base"))
