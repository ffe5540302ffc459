"""What ``train.packing`` saves: positions that are computed for each token of the rows, and CPU-seconds per pass.

    python bench/packing.py [--rounds 5]

The rows of ``bench/train.py`` (``mixed``: three corpora' lengths; ``sample``), the built-in model with LoRA r 16, one thread.
Ways, in turn within each round: padded passes in the order of the file, padded passes of like length, packed passes with one
square mask over all rows (what transformers makes of positions alone), packed passes with attention row by row behind the common
prompt (``train.packing``, the default). The losses must be equal. Writes bench/results/packing.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import torch
import train as bench_train

from xinglin import config, engine
from xinglin.train import model as train_model
from xinglin.train.packing import pack
from xinglin.train.rows import LengthBuckets, Row, collate

MICRO = 4
WAYS = ("padded, file order", "padded, like lengths", "packed, square mask", "packed, common prompt")


def passes(rows: Sequence[Row], way: str, pad: int) -> list[dict[str, torch.Tensor]]:
    order = range(len(rows)) if "file order" in way else LengthBuckets([len(row["input_ids"]) for row in rows], MICRO, 42)
    chosen = [rows[place] for place in order]
    batches = [chosen[start : start + MICRO] for start in range(0, len(chosen), MICRO)]
    make = {"packed, square mask": end_to_end, "packed, common prompt": pack}.get(way, lambda batch: collate(batch, pad))
    return [make(batch) for batch in batches]


def end_to_end(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Packed without a common prompt: every row whole."""
    parts = [pack([row]) for row in rows]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}


def loss(model: Any, batch: dict[str, torch.Tensor], way: str) -> torch.Tensor:
    """Summed loss of a pass."""
    if way == "packed, square mask":
        causal = model.get_base_model()
        logits, targets = engine.supervised(causal, batch["input_ids"], None, batch["labels"], position_ids=batch["position_ids"])
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    total: torch.Tensor = model(**batch, num_items_in_batch=torch.tensor(1.0)).loss
    return total


def measure(rows: Sequence[Row], rounds: int) -> dict[str, Any]:
    base, pad = config.DEMO / "base", int(engine.load_tokenizer(config.DEMO / "base").pad_token_id)
    made = {}
    for way in WAYS:
        torch.manual_seed(0)
        recipe = config.build({"model": "demo", "train": {"packing": way == "packed, common prompt"}})
        made[way] = (train_model.add_adapter(engine.load_base(base), recipe), passes(rows, way, pad))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    totals = {}
    for number in range(rounds):
        for way in (*WAYS[number % 4 :], *WAYS[: number % 4]):
            model, batches = made[way]
            started, totals[way] = time.process_time(), 0.0
            for batch in batches:
                value = loss(model, batch, way)
                value.backward()
                totals[way] += value.item()
            seconds[way].append(time.process_time() - started)
            model.zero_grad()
    tokens = sum(len(row["input_ids"]) for row in rows)
    supervised = sum(label != engine.IGNORED for row in rows for label in row["labels"])
    base_line = seconds["padded, like lengths"]
    return {
        way: {
            "positions": round(sum(batch["input_ids"].numel() for batch in made[way][1]) / tokens, 4),
            "supervised_tokens_per_cpu_second": round(supervised / statistics.median(seconds[way]), 1),
            "speed": round(statistics.median(b / own for own, b in zip(seconds[way], base_line, strict=True)), 3),
            "loss": round(totals[way] / supervised, 6),
        }
        for way in WAYS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for kind in ("mixed", "sample"):
        with tempfile.TemporaryDirectory() as folder:
            bench_train.write_rows(kind, Path(folder))
            lines = (Path(folder) / "train.jsonl").read_text(encoding="utf-8").splitlines()
        results[kind] = measure([json.loads(line) for line in lines], options.rounds)
        print(f"{kind:24}{'positions':>11}{'supervised tokens/CPU-s':>25}{'speed':>8}{'loss':>10}")
        for way, found in results[kind].items():
            rate = found["supervised_tokens_per_cpu_second"]
            print(f"  {way:22}{found['positions']:11.1%}{rate:25.0f}{found['speed']:8.2f}{found['loss']:10.6f}")
    common.save("packing", {"rows_a_pass": MICRO, "rounds": options.rounds, **results})


if __name__ == "__main__":
    main()
