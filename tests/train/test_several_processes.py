"""The same recipe under torchrun: two processes and one have the same losses and end in the same adapter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from xinglin import cli, config
from xinglin.train import stage
from xinglin.train.rows import LengthBuckets

KEYS = ["train.rank=4", "train.epochs=2", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=2",
        "train.max_length=400", "train.learning_rate=1e-3"]  # fmt: skip


def launch(recipe: config.Recipe, processes: int) -> subprocess.CompletedProcess[str]:
    """`xinglin train` of the recipe's rows, in processes that speak over gloo."""
    path = recipe.folder / "recipe.yaml"
    path.write_text(f"name: {recipe.name}\nmodel: {recipe.model}\nruns: {recipe.runs}\n", encoding="utf-8")
    starter = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *starter, "-m", "xinglin.cli", "train", str(path), *KEYS]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(stage.__file__).parents[2])}
    return subprocess.run(command, env=quiet, capture_output=True, text=True, check=False, timeout=300)


def test_two_processes_have_the_losses_of_one(recipe):
    found = {}
    for processes in (1, 2):
        done = launch(recipe, processes)
        assert done.returncode == 0, done.stderr[:3000]
        folder = recipe.folder / "4-train"
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        found[processes] = (
            [line["loss"] for line in lines if "loss" in line],
            load_file(folder / "adapter/adapter_model.safetensors"),
        )
        assert done.stderr.count("steps of 4 rows") == 1  # one of them speaks
        assert cli.execute("train", config.load(recipe.folder / "recipe.yaml", KEYS))["steps"] == 6  # up to date
        (folder / "manifest.json").unlink()
        (folder / "checkpoints/identity.json").unlink()
    (one, first), (two, second) = found[1], found[2]
    assert two == pytest.approx(one, abs=1e-4)
    assert max((first[key] - second[key]).abs().max().item() for key in first) < 1e-4


@pytest.mark.parametrize("rows", [1, 7, 8, 13])
def test_every_process_has_as_many_batches_and_every_row_comes_once(rows):
    order = list(LengthBuckets([10] * rows, batch=2, seed=1, processes=2))
    assert len(order) % 4 == 0
    assert sorted(row for row in order if row < rows) == list(range(rows))
    assert order[:rows] == list(LengthBuckets([10] * rows, batch=2, seed=1))


def test_a_batch_that_cannot_be_shared_out_is_one_line(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"train\.batch_size=4 is not a multiple of train\.micro_batch_size=2 on 3 devices"):
        stage.divide(recipe)


def test_divided_weights_are_refused(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="each holds the whole model; start without FSDP"):
        stage.divide(recipe)


def test_other_stages_run_in_one_process(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="split: runs in one process"):
        cli.execute("split", recipe)
