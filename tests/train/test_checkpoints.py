import json
import resource
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from train_helpers import run

from xinglin import records
from xinglin.train import checkpoints, trainer


def test_killed_between_checkpoints_the_run_ends_in_the_same_adapter(recipe):
    whole = run(recipe)
    folder = recipe.folder / "4-train"
    written = sorted((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(written[-1])  # killed after the one before it, with the last one half-written
    written[-1].mkdir()
    (written[-1] / "adapter_model.safetensors").write_bytes(b"half")
    resumed = run(recipe)
    assert max((resumed[key] - whole[key]).abs().max().item() for key in whole) <= 1e-6
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines() if "eval_loss" in line]
    assert steps == [2, 4, 6]


def test_preference_tuning_goes_on_where_it_was_killed(recipe):
    train = recipe.train.model_copy(update={"objective": "dpo"})
    pairs = recipe.model_copy(update={"train": train})
    for name in ("train", "validation"):
        path = recipe.folder / "3-split" / f"{name}.jsonl"
        records.write_jsonl(path, [replace(row, meta={"rejected": "多喝热水。"}) for row in records.load(path)])
    whole = run(pairs)
    folder = recipe.folder / "4-train"
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:])))
    resumed = run(pairs)
    assert max((resumed[key] - whole[key]).abs().max().item() for key in whole) <= 1e-6


def test_checkpoints_of_another_recipe_are_not_used(recipe, capsys):
    run(recipe)
    other = recipe.model_copy(update={"seed": 7})
    run(other)
    assert "is of other rows or settings; starting anew" in capsys.readouterr().err


def test_a_checkpoint_cut_anywhere_is_not_whole(recipe):
    run(recipe)
    last = max((recipe.folder / "4-train" / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert checkpoints.complete(last)
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json"):
        whole = (last / name).read_bytes()
        (last / name).write_bytes(whole[: len(whole) // 2])
        assert not checkpoints.complete(last), name
        (last / name).write_bytes(whole)
    assert checkpoints.complete(last)


def test_a_disk_without_room_for_a_checkpoint_is_one_line_before_it_is_begun(recipe, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"a checkpoint takes 1 MiB, 0 MiB are free; free some and run the same command"):
        run(recipe)
    assert not list((recipe.folder / "4-train" / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("most", [20_000, 60_000])  # bytes of a file: too few for the weights, or for the optimizer
def test_a_disk_that_fills_up_while_a_checkpoint_is_written(recipe, monkeypatch, capsys, most):
    whole, folder = run(recipe), recipe.folder / "4-train"
    shutil.rmtree(folder)
    asked, limits = [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def there_is_room_and_then_none(*_: object) -> None:
        asked.append(1)
        if len(asked) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))

    monkeypatch.setattr(trainer, "make_room", there_is_room_and_then_none)
    try:
        with pytest.raises(ValueError, match=r"checkpoint-4 could not be written \(.*MiB are free there\); make room and run"):
            run(recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (folder / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 4, "lo')  # as a full disk cuts a line off
    resumed = run(recipe)
    assert "going on from step 2 of 6" in capsys.readouterr().err
    assert max((resumed[key] - whole[key]).abs().max().item() for key in whole) <= 1e-6
