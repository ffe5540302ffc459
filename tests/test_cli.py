import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from xinglin import cli, records
from xinglin.data.clusters import write_sketch


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage that copies its one input, in place of `clean`."""
    source = tmp_path / "in.txt"
    source.write_text("one")
    calls = []

    def run(recipe, folder):
        calls.append(recipe.seed)
        records.write_text(folder / "out.txt", source.read_text())
        return [folder / "out.txt"], {"rows": 1}

    module = SimpleNamespace(
        FOLDER="1-clean", SETTINGS=("seed",), inputs=lambda recipe: [source], run=run, calls=calls, source=source
    )
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    module.recipe = tmp_path / "r.yaml"
    module.recipe.write_text(f"model: demo\nname: t\nruns: {tmp_path}\n")
    module.folder = tmp_path / "t" / "1-clean"
    return module


def test_a_stage_that_is_up_to_date_is_skipped_and_says_so(stage, capsys):
    assert cli.main(["clean", str(stage.recipe)]) == 0
    assert cli.main(["clean", str(stage.recipe)]) == 0
    assert stage.calls == [42]
    assert "clean: up to date, skipped" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["input", "setting", "output lost", "output altered"])
def test_a_change_of_input_setting_or_output_runs_it_again(stage, change):
    cli.main(["clean", str(stage.recipe)])
    overrides = ["seed=7"] if change == "setting" else []
    if change == "input":
        stage.source.write_text("two")
    if change == "output lost":
        (stage.folder / "out.txt").unlink()
    if change == "output altered":
        (stage.folder / "out.txt").write_text("torn")
    assert cli.main(["clean", str(stage.recipe), *overrides]) == 0
    assert len(stage.calls) == 2


def fail(stage, monkeypatch, error: BaseException) -> int:
    def run(recipe, folder):
        raise error

    monkeypatch.setattr(stage, "run", run)
    return cli.main(["clean", str(stage.recipe)])


def test_what_the_user_can_mend_is_one_line_and_exit_2(stage, monkeypatch, capsys):
    assert fail(stage, monkeypatch, ValueError("data x.csv: empty file;\n give another")) == 2
    assert capsys.readouterr().err == "xinglin: data x.csv: empty file; give another\n"
    assert not (stage.folder / "manifest.json").exists()


def test_a_full_disk_names_the_file(stage, monkeypatch, capsys):
    assert fail(stage, monkeypatch, OSError(errno.ENOSPC, "No space left on device", "runs/t/x")) == 2
    assert capsys.readouterr().err == "xinglin: runs/t/x: No space left on device\n"


@pytest.mark.parametrize("write", [records.write_text, lambda path, text: write_sketch(path, [text])])
def test_whatever_fills_the_disk_names_its_file_and_says_what_to_do(stage, monkeypatch, capsys, tmp_path, write):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def run(recipe, folder):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        write(tmp_path / "f.npy", "问\x1e答" * 100)

    monkeypatch.setattr(stage, "run", run)
    try:
        assert cli.main(["clean", str(stage.recipe)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"xinglin: {tmp_path}/f.npy: ")
    assert line.endswith("; free some space and run the same command again")
    assert not (tmp_path / "f.npy").exists()


def test_other_errors_of_a_file_pass_as_they_are():
    with pytest.raises(PermissionError, match=r"\[Errno 13\] no: 'x'$"), records.room(Path("y")):
        raise PermissionError(errno.EACCES, "no", "x")


def test_interrupted_is_130_and_says_how_to_go_on(stage, monkeypatch, capsys):
    assert fail(stage, monkeypatch, KeyboardInterrupt()) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f.txt"
    records.write_text(path, "old")
    with pytest.raises(OSError), records.atomic(path) as file:
        file.write("half of the ne")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_overrides_may_stand_behind_an_option():
    options = cli.parse(["chat", "r.yaml", "name=a", "-q", "头痛？", "seed=7"])
    assert (options.question, options.overrides) == ("头痛？", ["name=a", "seed=7"])
    with pytest.raises(SystemExit):
        cli.parse(["run", "r.yaml", "--fast"])


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xinglin.cli", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_imports_nothing_heavy():
    code = "import sys; from xinglin import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [name for name in ("torch", "transformers", "polars", "fastapi", "pydantic", "yaml") if f"'{name}'" in loaded] == []


def test_a_missing_data_file_is_one_line(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: demo\nruns: {tmp_path}\n")
    done = run("run", str(recipe), "data=[none.jsonl]")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none.jsonl" in done.stderr


def test_ctrl_c_in_training_leaves_a_checkpoint_to_go_on_from(tmp_path, tiny):
    from xinglin import schema

    answer = schema.Answer.from_points([("甲。", "乙。"), ("丙。", "丁。"), ("戊。", "己。")]).render()
    turns = [{"role": "user", "content": "头痛怎么办？"}, {"role": "assistant", "content": answer}]
    made = [records.Record(str(i), str(i), turns, {}) for i in range(20)]
    for name in ("train", "validation"):
        records.write_jsonl(tmp_path / "t" / "3-split" / f"{name}.jsonl", made)
    settings = {"batch_size": 2, "micro_batch_size": 2, "epochs": 10, "evaluations": 25, "patience": 0}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"name": "t", "model": str(tiny), "runs": str(tmp_path), "train": settings}))
    command = [sys.executable, "-m", "xinglin.cli", "train", str(recipe)]
    training = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    checkpoints = tmp_path / "t" / "4-train" / "checkpoints"
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert training.poll() is None, training.stderr.read()
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    _, error = training.communicate(timeout=60)
    assert training.returncode == 130
    assert error.rstrip().endswith("the same command goes on from here")
    assert not (tmp_path / "t" / "4-train" / "adapter").exists()
    again = run("train", str(recipe), timeout=300)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stderr
