"""Supervised tokens per CPU-second of LoRA tuning: Xinglin against transformers.Trainer, TRL, LLaMA-Factory and ms-swift.

    for peer in trl llama-factory ms-swift; do bash bench/peers/$peer.sh; done
    python bench/train.py [--rounds 3] [--rows mixed sample] [--sides xinglin trainer trl llama-factory ms-swift]

Every side tunes the built-in model on the same rows: LoRA r 16, alpha 32 on all linear layers, fp32, 4 rows x 2, AdamW, cosine,
no checkpointing, one thread. A round is one run of every side, each in a process and an environment of its own; ratios are taken
within a round, and the median of the rounds is printed. "loss" is that of the finished adapter on rows held out, computed here.
Rows: ``mixed`` have three sections and the lengths of question (with history) and answer of three public consultation corpora,
48 each; ``sample`` are the three-section rows that come with Xinglin. Writes bench/results/train.json.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "bench" / "peers"
SIDES = {
    "xinglin": (".venv", ROOT / "bench" / "train.py"),
    "trainer": (".peers/trl", PEERS / "trainer_train.py"),
    "trl": (".peers/trl", PEERS / "trl_train.py"),
    "llama-factory": (".peers/llama-factory", PEERS / "llama_factory_train.py"),
    "ms-swift": (".peers/ms-swift", PEERS / "ms_swift_train.py"),
}
SETTINGS = {"rank": 16, "alpha": 32, "learning_rate": 2e-3, "epochs": 1, "micro": 4, "accumulate": 2, "skip": 1, "warmup": 1}
TRAIN, HELD = 96, 24
# Characters of question (with history) and answer at every twentieth part of the rows of a corpus, shortest to longest.
LENGTHS = {
    "toyhom": (
        (3, 32, 36, 39, 41, 43, 46, 48, 52, 55, 61, 69, 76, 83, 89, 94, 97, 101, 106, 116, 269),
        (38, 121, 123, 125, 127, 130, 132, 135, 139, 143, 147, 151, 157, 164, 171, 177, 185, 192, 200, 210, 744),
    ),
    "huatuo26m": (
        (6, 12, 14, 17, 20, 22, 25, 28, 31, 33, 36, 39, 43, 47, 52, 57, 65, 75, 87, 110, 255),
        (1, 32, 45, 54, 62, 68, 74, 80, 85, 92, 98, 105, 111, 118, 127, 135, 147, 166, 194, 275, 6608),
    ),
    "cmtmedqa": (
        (8, 34, 44, 215, 368, 413, 441, 467, 489, 514, 541, 565, 588, 611, 642, 670, 699, 739, 793, 874, 1620),
        (10, 28, 30, 32, 35, 37, 39, 41, 43, 45, 48, 51, 55, 65, 84, 116, 131, 153, 175, 245, 578),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=("mixed", "sample"), default=["mixed", "sample"])
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    options = parser.parse_args()
    results = {kind: compare(kind, options.sides, options.rounds) for kind in options.rows}
    common.save("train", {"settings": SETTINGS, "threads": 1, "rounds": options.rounds, **results})


def compare(kind: str, sides: Sequence[str], rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        described = write_rows(kind, Path(folder))
        write_model(Path(folder) / "model")
        measured: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for number in range(rounds):
            turn = number % len(sides)
            for side in [*sides[turn:], *sides[:turn]]:
                measured[side].append(run_side(side, Path(folder), number))
                print(f"{kind} round {number + 1} {side}: {measured[side][-1]}", file=sys.stderr, flush=True)
    return {"rows": described, "sides": {side: summary(runs, measured, side, described) for side, runs in measured.items()}}


def summary(
    runs: Sequence[dict[str, Any]], measured: dict[str, list[dict[str, Any]]], side: str, rows: dict[str, Any]
) -> dict[str, Any]:
    """Medians over the rounds, the ratio to Xinglin within each round, and a line of them on stdout.

    Real tokens are those of the rows, of which Xinglin computes the ones that all begin with only once.
    """
    rates = {"supervised": [run["supervised"] / run["cpu"] for run in runs]}
    rates["real"] = [rate / rows["supervised_share"] for rate in rates["supervised"]]
    found = {f"{name}_tokens_per_cpu_second": round(statistics.median(values)) for name, values in rates.items()}
    found |= {key: round(statistics.median(run[key] for run in runs), 4) for key in ("growth", "loss", "positions", "supervised")}
    if "xinglin" in measured:
        ratios = [
            (own["supervised"] / own["cpu"]) / rate for own, rate in zip(measured["xinglin"], rates["supervised"], strict=True)
        ]
        found |= {"xinglin_is_times": round(statistics.median(ratios), 3), "each_round": [round(ratio, 3) for ratio in ratios]}
    print(f"{side:14} " + "  ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def run_side(side: str, folder: Path, number: int) -> dict[str, Any]:
    environment, script = SIDES[side]
    own = folder / f"{side}-{number}"
    own.mkdir()
    job = {**SETTINGS, "model": str(folder / "model"), "rows": str(folder / "train.jsonl"), "folder": str(own)}
    (own / "job.json").write_text(json.dumps(job), encoding="utf-8")
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{side}: {environment} is missing; bash bench/peers/{side}.sh makes it")
    paths = [str(PEERS), *([str(ROOT)] if side == "xinglin" else [])]
    command = [str(python), str(script), *(["--job"] if side == "xinglin" else []), str(own / "job.json")]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env={**os.environ, **quiet, "PYTHONPATH": ":".join(paths)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads((own / "meter.json").read_text(encoding="utf-8"))
    return {**found, "loss": round(held_loss(own / "adapter", folder / "held.jsonl"), 4)}


# ---------------------------------------------------------------- model and rows


def write_model(folder: Path) -> None:
    """The built-in model in fp32, as it is computed: a peer that keeps the stored half precision is ten times slower here."""
    from xinglin import config, engine

    engine.load_base(config.DEMO / "base").save_pretrained(folder)
    engine.load_tokenizer(config.DEMO / "base").save_pretrained(folder)


def write_rows(kind: str, folder: Path) -> dict[str, Any]:
    """train.jsonl and held.jsonl of {"messages", "input_ids", "labels"}; returns how long they are."""
    from xinglin import config, engine, schema

    tokenizer = engine.load_tokenizer(config.DEMO / "base")
    pairs = sample_pairs() if kind == "sample" else mixed_pairs()
    rows = []
    for question, answer in pairs:
        messages = [*schema.messages(question), {"role": "assistant", "content": answer}]
        ids, labels = engine.encode_row(tokenizer, messages)
        if len(ids) <= 1024:
            rows.append({"messages": messages, "input_ids": ids, "labels": labels})
    for name, part in (("train", rows[:TRAIN]), ("held", rows[TRAIN : TRAIN + HELD])):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lengths = sorted(len(row["input_ids"]) for row in rows[:TRAIN])
    supervised = sum(label != -100 for row in rows[:TRAIN] for label in row["labels"])
    shown = {f"p{share}": lengths[min(len(lengths) - 1, len(lengths) * share // 100)] for share in (5, 50, 95, 100)}
    return {"train": len(lengths), "tokens": sum(lengths), "supervised_share": round(supervised / sum(lengths), 3), **shown}


def sample_pairs() -> list[tuple[str, str]]:
    from xinglin import config, records, schema

    rows = [row for row in records.read(config.DEMO / "sample.jsonl") if isinstance(row, records.Record)]
    return [(row.question, row.answer) for row in rows if not schema.check(row.answer)]


def mixed_pairs() -> list[tuple[str, str]]:
    """Questions and three-section answers of the lengths above, made of text of the sample."""
    from xinglin import schema

    random_ = random.Random(3)
    text = "".join(answer for _, answer in sample_pairs()).replace("\n", "")

    def piece(length: int) -> str:
        start = random_.randrange(len(text) - length)
        return text[start : start + length]

    pairs = []
    for question, answer in (pair for each in LENGTHS.values() for pair in draw(*each, random_)):
        parts = [piece(answer // 6 + 12) for _ in range(6)]
        pairs.append((piece(question), schema.Answer.from_points(list(zip(parts[::2], parts[1::2], strict=True))).render()))
    random_.shuffle(pairs)
    return pairs


def draw(questions: Sequence[int], answers: Sequence[int], random_: random.Random, count: int = 48) -> list[tuple[int, int]]:
    """Pairs of lengths whose marginals are those of a corpus; longest answers that no model context holds are left out."""

    def one(marks: Sequence[int]) -> int:
        place = random_.randrange(len(marks) - 1)
        return random_.randint(marks[place], marks[place + 1])

    return [(one(questions), min(one(answers), 800)) for _ in range(count)]


# ---------------------------------------------------------------- Xinglin's own side


def tune(path: str) -> None:
    """One job through the train stage as the command line runs it."""
    import meter
    from transformers import Trainer

    from xinglin import config, records
    from xinglin.train import stage

    job = meter.read(path)
    gauge = meter.Meter(job)
    gauge.attach(Trainer)
    train = {
        "rank": job["rank"], "alpha": job["alpha"], "learning_rate": job["learning_rate"], "epochs": job["epochs"],
        "micro_batch_size": job["micro"], "batch_size": job["micro"] * job["accumulate"], "max_length": 1024, "evaluations": 1,
    }  # fmt: skip
    recipe = config.build({"name": "run", "model": job["model"], "runs": job["folder"], "train": train})
    rows = [json.loads(line)["messages"][1:] for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    made = [records.Record(f"r{number}", f"r{number}", row, {}) for number, row in enumerate(rows)]
    records.write_jsonl(recipe.folder / "3-split" / "train.jsonl", made)
    records.write_jsonl(recipe.folder / "3-split" / "validation.jsonl", made[:1])
    stage.run(recipe, recipe.folder / stage.FOLDER)
    gauge.save()
    (recipe.folder / stage.FOLDER / "adapter").rename(Path(job["folder"]) / "adapter")


def held_loss(adapter: Path, rows: Path) -> float:
    """Loss per supervised token of an adapter on the held-out rows, one by one: no batch of any side is involved."""
    import torch
    from peft import PeftModel
    from torch.nn.functional import cross_entropy

    from xinglin import config, engine

    torch.set_num_threads(1)
    base = engine.load_base(config.DEMO / "base")
    PeftModel.from_pretrained(base, str(adapter))
    total, count = 0.0, 0
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        with torch.inference_mode():
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            logits, targets = engine.supervised(base, ids, torch.ones_like(ids), labels)
        total += cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    return total / count


if __name__ == "__main__":
    if "--job" in sys.argv:
        tune(sys.argv[-1])
    else:
        main()
