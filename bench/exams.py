"""Is our exam score lm-evaluation-harness's own? The same model, questions and prompt, prediction by prediction.

Ours: the stage's way, task files through the harness with our engine as its model, batched by length, answers kept in a file.
Theirs: the same task files with HFLM, the harness's own model class, in an environment of its own. Needs shared/ beside
the repository and bench/peers/lm-eval.sh. CMB and MedQA-zh: CMExam questions in the shapes of those two, as shared/ holds no
file of theirs. The built-in model never names a letter; a copy of it is taught to in a minute, so that answers differ from
question to question. Prints a table and writes bench/results/exams.json; exams not asked for keep their rows there.

HFLM counts the last line break of the chat template to the answer, which adds the same number to all letters of a question:
log-probabilities are compared as differences from the first letter's.

    python bench/exams.py [EXAM …]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch

from xinglin.engine import Engine, encode_row
from xinglin.evaluate import exams, harness, papers
from xinglin.evaluate.sides import Desk, of_engine

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
MOST = {"ceval": 0, "cmmlu": 300, "cmexam": 300, "cmb": 150, "medqa_zh": 150}
STEPS = 80


def taught(folder: Path, questions: list[exams.Question]) -> str:
    """A copy of the built-in model that answers exam questions with a sentence around a letter."""
    torch.manual_seed(1)
    engine = Engine.load(str(ROOT / "xinglin" / "demo" / "base"))
    engine.model.train()
    optimizer = torch.optim.AdamW(engine.model.parameters(), 1e-3)
    said = ("{}", "选{}", "答案是{}。", "正确答案：{}")
    for step in range(STEPS):
        batch = [questions[(8 * step + place) % len(questions)] for place in range(8)]
        rows = [
            encode_row(engine.tokenizer, [*q.prompt, {"role": "assistant", "content": said[n % 4].format("、".join(q.answer))}])
            for n, q in enumerate(batch)
        ]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
        labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])
        engine.model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    engine.model.save_pretrained(folder)
    engine.tokenizer.save_pretrained(folder)
    return str(folder)


def shaped(folder: Path, questions: list[exams.Question]) -> dict[str, str]:
    """Files in the shapes of CMB (questions and answers apart) and MedQA-zh."""
    asked = [{"id": n, "exam_subject": q.subject, "question": q.text, "option": dict(q.options)} for n, q in enumerate(questions)]
    keys = [{"id": n, "answer": q.answer} for n, q in enumerate(questions)]
    single = [q for q in questions if len(q.answer) == 1]
    lines = [
        {
            "question": q.text,
            "options": dict(q.options),
            "answer": q.options[q.answer],
            "answer_idx": q.answer,
            "meta_info": q.subject,
        }
        for q in single
    ]
    (folder / "cmb").mkdir()
    (folder / "cmb" / "question.json").write_text(json.dumps(asked), encoding="utf-8")
    (folder / "cmb" / "answer.json").write_text(json.dumps(keys), encoding="utf-8")
    (folder / "medqa_zh.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return {"cmb": str(folder / "cmb"), "medqa_zh": str(folder / "medqa_zh.jsonl")}


def theirs(task: str, model: str, metadata: dict[str, Any]) -> dict[str, Any]:
    command = [".peers/lm-eval/bin/python", "bench/peers/lm_eval_exam.py", task, model, json.dumps(metadata)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def outputs(desk: Desk, side: Any, mode: str, questions: list[exams.Question]) -> list[Any]:
    """What the side said to each question, out of the file of answers the stage's way has just filled."""
    prompts = [question.prompt for question in questions]
    if mode == "chat":
        return [found["text"].strip() for found in desk.answers(side, prompts, exams.CHAT_TOKENS, "exam bench")]
    scores = [found["scores"] for found in desk.letters(side, prompts, "letters bench")]
    return [[row[exams.LETTERS.index(letter)] for letter in q.options] for row, q in zip(scores, questions, strict=True)]


def compare(engine: Engine, model: str, exam: str, path: str, mode: str, folder: Path) -> dict[str, Any]:
    most, side, desk = MOST[exam], of_engine(engine, "base", False, {"copy": model}), Desk(folder / f"answers-{exam}.jsonl", 16)
    paper = papers.paper(path, most, 42)
    questions = (exams.single(paper) if mode == "likelihood" else paper).questions
    started = time.monotonic()
    marked = harness.mark(side, desk, mode, path, "bench", most, 42)
    between = time.monotonic()
    peer = theirs(f"xinglin_{exam}_{mode}", model, {exam: path, "most": most, "seed": 42})
    ended = time.monotonic()
    said = outputs(desk, side, mode, questions)
    row = {
        "exam": exam,
        "mode": mode,
        "questions": len(questions),
        "same_prompt": sum(one["prompt"] == q.prompt[-1]["content"] for one, q in zip(peer["rows"], questions, strict=True)),
        "same_mark": sum(one["acc"] == right for one, right in zip(peer["rows"], marked.right, strict=True)),
        "accuracy": sum(marked.right) / len(questions),
        "accuracy_harness": peer["acc"],
        "unparseable": sum(marked.unreadable) / len(questions),
        "seconds": between - started,
        "seconds_harness": ended - between,
    }
    if mode == "chat":
        same = [mine == one["outputs"][0].strip() for mine, one in zip(said, peer["rows"], strict=True)]
        return {**row, "same_output": sum(same), "different_outputs": len(set(said))}
    others = [[score for score, _ in one["outputs"]] for one in peer["rows"]]
    same = [mine.index(max(mine)) == other.index(max(other)) for mine, other in zip(said, others, strict=True)]
    apart = max(
        abs((a - mine[0]) - (b - other[0]))
        for mine, other in zip(said, others, strict=True)
        for a, b in zip(mine, other, strict=True)
    )
    return {**row, "same_output": sum(same), "largest_difference": apart}


def main(names: list[str]) -> None:
    cmexam = papers.paper(str(DATA / "cmexam" / "val.json"), 1500, 7).questions
    kept = json.loads((common.RESULTS / "exams.json").read_text(encoding="utf-8"))["rows"]
    rows = [row for row in kept if row["exam"] in MOST and row["exam"] not in names]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = taught(folder / "model", cmexam[:640])
        paths = {"ceval": str(DATA / "ceval/val"), "cmmlu": str(DATA / "cmmlu/test"), "cmexam": str(DATA / "cmexam/val.json")}
        paths |= shaped(folder, cmexam[700:])
        engine = Engine.load(model)
        for exam in names:
            for mode in ("likelihood", "chat"):
                rows.append(compare(engine, model, exam, paths[exam], mode, folder))
                print(
                    {key: round(value, 6) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True
                )
                common.save("exams", {"model": f"built-in, {STEPS} steps on exam questions", "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:] or list(MOST))
