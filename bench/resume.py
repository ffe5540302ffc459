"""kill -9 at 20 random points of a training run, half of them while a checkpoint is being written: does it end the same?

    python bench/resume.py [--kills 20]

Each trial starts the train stage in a process of its own, kills it, and lets a second one go on to the end. Compared with an
uninterrupted run: the rows of every optimizer step that counted in the end (the same batches), and the adapter (fp32, 1e-6 apart
at most). A process is forked from one that has imported everything, so that a trial costs training time only. Prints a line per
trial and writes bench/results/resume.json.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch
from safetensors.torch import load_file

from xinglin import config, records, schema
from xinglin.train import stage, trainer

SETTINGS = {"rank": 8, "alpha": 16, "epochs": 2, "batch_size": 4, "micro_batch_size": 2, "evaluations": 6, "max_length": 1024,
            "learning_rate": 1e-3, "rows": 40}  # fmt: skip
FORK = multiprocessing.get_context("fork")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(Path(folder))
        began = time.monotonic()
        finish(recipe)
        whole, batches, seconds = adapter(recipe), seen(recipe), time.monotonic() - began
        trials = [trial(recipe, number, seconds, whole, batches) for number in range(options.kills)]
    results = {
        "kills": len(trials), "killed_while_writing": sum(trial["writing"] for trial in trials),
        "went_on_from_a_checkpoint": sum(trial["from_step"] > 0 for trial in trials),
        "same_batches": sum(trial["same_batches"] for trial in trials),
        "largest_difference": max(trial["difference"] for trial in trials), "trials": trials,
    }  # fmt: skip
    print({key: value for key, value in results.items() if key != "trials"})
    common.save("resume", results)


def prepare(folder: Path) -> config.Recipe:
    recipe = config.build({"name": "run", "model": "demo", "runs": str(folder), "train": SETTINGS})
    rows = [row for row in records.read(config.DEMO / "sample.jsonl") if isinstance(row, records.Record)]
    complete = [row for row in rows if not schema.check(row.answer)]
    records.write_jsonl(recipe.folder / "3-split" / "train.jsonl", complete[:-6])
    records.write_jsonl(recipe.folder / "3-split" / "validation.jsonl", complete[-6:])
    return recipe


def tune(recipe: config.Recipe, quiet: bool = True) -> None:
    """One process of the stage; what its batches hold goes to batches.jsonl as ``[optimizer step, hash of the ids]``."""
    if quiet:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    original = trainer.BucketTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        with open(recipe.folder / "batches.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps([self.state.global_step, hash(tuple(inputs["input_ids"].flatten().tolist()))]) + "\n")
        return original(self, model, inputs, *rest, **named)

    trainer.BucketTrainer.training_step = training_step
    folder = recipe.folder / stage.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    stage.run(recipe, folder)


def trial(
    recipe: config.Recipe, number: int, seconds: float, whole: dict[str, Any], batches: dict[int, list[int]]
) -> dict[str, Any]:
    random_ = random.Random(number)
    shutil.rmtree(recipe.folder / stage.FOLDER)
    (recipe.folder / "batches.jsonl").unlink()
    process = FORK.Process(target=tune, args=(recipe,))
    process.start()
    writing = number % 2 == 0
    if writing:
        wait_for_writing(recipe, random_.randint(1, 5), random_.uniform(0, 0.02))
    else:
        time.sleep(random_.uniform(0.1, 0.95) * seconds)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    whole_ones = [path for path in checkpoints(recipe) if (path / "trainer_state.json").exists()]
    partial = len(checkpoints(recipe)) - len(whole_ones)
    log_lines = len((recipe.folder / "batches.jsonl").read_text().splitlines())
    with open(recipe.folder / "batches.jsonl", "a", encoding="utf-8") as file:
        file.write("[-1, 0]\n")  # here it was killed: what follows is a step begun anew
    finish(recipe)
    found = adapter(recipe)
    result = {
        "writing": writing, "partial_checkpoints": partial, "forward_passes_before": log_lines,
        "from_step": max((int(path.name[11:]) for path in whole_ones), default=0),
        "same_batches": seen(recipe) == batches,
        "difference": max((found[key] - whole[key]).abs().max().item() for key in whole),
    }  # fmt: skip
    print(f"trial {number + 1}: {result}", flush=True)
    return result


def wait_for_writing(recipe: config.Recipe, which: int, delay: float) -> None:
    """Until the checkpoint ``which`` begins to appear, and a little longer."""
    while len(checkpoints(recipe)) < min(which, 2):  # two are kept
        time.sleep(0.0005)
    seen_names = {path.name for path in checkpoints(recipe)}
    for _ in range(which - 2):
        while not {path.name for path in checkpoints(recipe)} - seen_names:
            time.sleep(0.0005)
        seen_names |= {path.name for path in checkpoints(recipe)}
    time.sleep(delay)


def checkpoints(recipe: config.Recipe) -> list[Path]:
    return sorted((recipe.folder / stage.FOLDER / "checkpoints").glob("checkpoint-*"))


def finish(recipe: config.Recipe) -> None:
    process = FORK.Process(target=tune, args=(recipe,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run that goes on failed with {process.exitcode}")


def adapter(recipe: config.Recipe) -> dict[str, Any]:
    found: dict[str, Any] = load_file(recipe.folder / stage.FOLDER / "adapter" / "adapter_model.safetensors")
    return found


def seen(recipe: config.Recipe) -> dict[int, list[int]]:
    """The last batches of every optimizer step: a step that was done again after a kill counts as it was done last."""
    found: dict[int, list[int]] = {}
    previous = -1
    for line in (recipe.folder / "batches.jsonl").read_text(encoding="utf-8").splitlines():
        step, ids = json.loads(line)
        if step == -1:
            previous = -1
            continue
        if step != previous:
            found[step] = []
        found[step].append(ids)
        previous = step
    return found


if __name__ == "__main__":
    main()
