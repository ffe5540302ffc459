"""The same recipe under torchrun: two processes and one have the same losses and end in the same adapter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_helpers import write_split

from xinglin import cli, config
from xinglin.train import checkpoints, stage
from xinglin.train.rows import LengthBuckets

KEYS = ["train.rank=4", "train.epochs=2", "train.batch_size=4", "train.micro_batch_size=2", "train.evaluations=2",
        "train.max_length=400", "train.learning_rate=1e-3"]  # fmt: skip


def launch(recipe: config.Recipe, processes: int) -> subprocess.CompletedProcess[str]:
    """`xinglin train` of the recipe's rows, in processes that speak over gloo."""
    path = write_recipe(recipe)
    starter = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *starter, "-m", "xinglin.cli", "train", str(path), *KEYS]
    return subprocess.run(command, env=quiet(), capture_output=True, text=True, check=False, timeout=300)


def write_recipe(recipe: config.Recipe) -> Path:
    path = recipe.folder / "recipe.yaml"
    path.write_text(f"name: {recipe.name}\nmodel: {recipe.model}\nruns: {recipe.runs}\n", encoding="utf-8")
    return path


def quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(stage.__file__).parents[2])}


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


def forked(recipe: config.Recipe, *runs: dict[str, object]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).with_name("forked_runs.py")), json.dumps(runs), str(write_recipe(recipe))]
    return subprocess.run(command, env=quiet(), capture_output=True, text=True, check=False, timeout=300)


def losses_and_weights(folder: Path, name: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("eval_loss")) for line in lines], load_file(folder / "adapter" / name)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["train.gradient_checkpointing=true"], "adapter_model.safetensors"),
        (["train.method=full", "model=demo"], "model.safetensors"),  # the demo model's LM head is its embedding
    ],
)
def test_divided_weights_have_the_losses_of_whole_ones_and_go_on_after_a_kill(recipe, more, name):
    write_split(recipe.model_copy(update={"name": "parts"}))
    whole, parts = ([f"name={run}", *KEYS, *more] for run in ("whole", "parts"))
    write_split(recipe.model_copy(update={"name": "whole"}))
    killed = ["adapter", "manifest.json", "checkpoints/checkpoint-6"]  # while the last checkpoint was written
    done = forked(
        recipe,
        {"overrides": whole, "processes": 1, "divided": False},
        {"overrides": parts, "processes": 2, "divided": True},
        {"overrides": parts, "processes": 2, "divided": True, "remove": killed},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("divided over 2 processes") == 2
    assert "going on from step 3 of 6" in done.stderr
    expected, before = losses_and_weights(recipe.runs / "whole" / "4-train", name)
    losses, weights = losses_and_weights(recipe.runs / "parts" / "4-train", name)
    assert losses == pytest.approx(expected, abs=1e-4)
    assert weights.keys() == before.keys()
    assert max((weights[key] - before[key]).abs().max().item() for key in before) < 1e-4


def test_a_checkpoint_of_divided_weights_is_not_gone_on_from_with_whole_ones(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "optimizer.bin").touch()
    with pytest.raises(ValueError, match="checkpoint-3 is of a run with --use_fsdp; start it with --use_fsdp again, or remove"):
        checkpoints.last_complete(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantization": "nf4"}, r"train\.quantization=nf4: bitsandbytes' weights are not divided"),
        ({"objective": "dpo"}, r"train\.objective=dpo needs the whole model in each process; start without --use_fsdp"),
        ({"method": "pissa"}, r"train\.method=pissa needs the whole model"),
    ],
)
def test_what_does_not_go_with_divided_weights_is_one_line(recipe, monkeypatch, changes, reason):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=reason):
        stage.divide(recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)}))


def test_other_stages_run_in_one_process(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="split: runs in one process"):
        cli.execute("split", recipe)
