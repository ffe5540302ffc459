"""How much faster are questions answered in sorted batches than one by one? Same questions, model and limit, in one run.

One by one is ``generate`` as a script would call it: one question, no padding, no batch. Prints questions per second of both and
writes bench/results/answers.json. The questions are the sample's, repeated with other ages up to the number asked for.

    python bench/answers.py [QUESTIONS] [MODEL]
"""

import sys
import tempfile
import time
from pathlib import Path

import common

from xinglin import records, schema
from xinglin.engine import Engine
from xinglin.evaluate.sides import Desk, of_engine

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 128
BATCH = 32
ONE_BY_ONE = 100  # questions timed one by one; the rest would take the same time each


def questions(count: int) -> list[str]:
    rows = [row for row in records.read(ROOT / "xinglin" / "demo" / "sample.jsonl") if isinstance(row, records.Record)]
    return [f"{rows[index % len(rows)].question}（第{index // len(rows) + 1}次，{20 + index % 60}岁）" for index in range(count)]


def main(count: int, model: str) -> None:
    engine = Engine.load(model)
    prompts = [schema.messages(question) for question in questions(count)]
    engine.complete(prompts[:2], max_new_tokens=8)
    every = max(1, count // ONE_BY_ONE)
    started = time.monotonic()
    singles = [engine.complete([messages], max_new_tokens=TOKENS)[0] for messages in prompts[::every]]
    one_by_one = len(singles) / (time.monotonic() - started)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        desk = Desk(Path(folder) / "answers.jsonl", BATCH)
        answered = desk.answers(of_engine(engine, "base", False, {}), prompts, TOKENS)
        batched = len(answered) / (time.monotonic() - started)
    same = sum(single.text == answer["text"] for single, answer in zip(singles, answered[::every], strict=True))
    result = {
        "model": Path(model).name,
        "questions": count,
        "max_new_tokens": TOKENS,
        "batch_size": BATCH,
        "one_by_one_timed_on": len(singles),
        "one_by_one_per_second": one_by_one,
        "batched_per_second": batched,
        "times": batched / one_by_one,
        "same_text": f"{same} of {len(singles)}",
    }
    print(result)
    common.save("answers", result)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("1000", str(ROOT / "xinglin" / "demo" / "base"))[len(sys.argv) - 1 :]]
    main(int(arguments[0]), arguments[1])
