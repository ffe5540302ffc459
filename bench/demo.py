"""How often the built-in model answers completely before and after tuning, on questions it has not seen.

    python bench/demo.py            # after `make demo SERVE=0`; writes bench/results/demo.json

Greedy decoding, no constraint, at most 500 tokens. Questions: every fifth of the hand-written ordinary ones of
the triage sets, from the third on; the recipe was chosen on others (docs/log.md).
"""

import json
import math
import platform
import sys
import time
from datetime import date
from pathlib import Path

from xinglin import config, records, schema
from xinglin.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ROOT / "tests" / "safety" / "sets" / "first" / "ordinary.jsonl"
BATCH = 20


def main() -> None:
    recipe = config.load(ROOT / "recipes" / "demo.yaml", sys.argv[1:])
    engine = Engine.load(recipe.base, recipe.folder / "4-train" / "adapter")
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    questions = sorted((json.loads(line)["text"] for line in lines[2::5]), key=len)
    results = {name: share(engine, questions, tuned) for name, tuned in (("base", False), ("tuned", True))}
    for name, result in results.items():
        print(
            f"{name:6} {result['complete']} of {result['n']} complete, 95 % interval {result['interval']}, {result['seconds']} s"
        )
    facts = {"date": str(date.today()), "hardware": f"{platform.machine()}, 2 cores, no GPU", **results}
    records.write_json(ROOT / "bench" / "results" / "demo.json", facts)


def share(engine: Engine, questions: list[str], tuned: bool) -> dict[str, object]:
    """Complete answers among all: three sections in order, none empty, the last sentence finished, ended by the model."""
    started, complete = time.monotonic(), 0
    for start in range(0, len(questions), BATCH):
        prompts = [schema.messages(question) for question in questions[start : start + BATCH]]
        replies = engine.complete(prompts, tuned=tuned, max_new_tokens=500)
        complete += sum(reply.finish_reason == "stop" and not schema.check(reply.text) for reply in replies)
    n = len(questions)
    return {"complete": complete, "n": n, "interval": wilson(complete, n), "seconds": round(time.monotonic() - started, 1)}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share."""
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return round((middle - half) / scale, 4), round((middle + half) / scale, 4)


if __name__ == "__main__":
    main()
