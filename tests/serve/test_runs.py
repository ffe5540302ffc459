from pathlib import Path

import httpx
import pytest
from serve_fakes import running, serving

from xinglin.serve import runs


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name / "4-train" / "log.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", '{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    assert runs.log(tmp_path, "mine", 0) == [{"step": 1, "loss": 3.0}]
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n', encoding="utf-8")
    assert runs.log(tmp_path, "mine", 1) == [{"step": 2, "loss": 2.5}]


def test_summary_joins_the_latest_values(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", '{"step": 9, "epoch": 1, "loss": 3.0}\n{"step": 9, "epoch": 1, "eval_loss": 2.9}\n')
    (found,) = runs.found(tmp_path)
    assert (found["name"], found["step"], found["loss"], found["eval_loss"], found["finished"]) == ("mine", 9, 3.0, 2.9, False)
    (path.parent / "manifest.json").write_text("{}", encoding="utf-8")
    assert runs.found(tmp_path)[0]["finished"] is True


@pytest.mark.parametrize("name", ["..", ".", "", "../outside", "outside/..", "/etc", "nothing"])
def test_no_name_leads_out_of_the_runs(tmp_path: Path, name: str) -> None:
    write(tmp_path, "outside", '{"step": 1}\n')
    with pytest.raises(ValueError, match="has no log"):
        runs.log(tmp_path / "inside", name, 0)


def test_an_escaped_path_is_no_name(tmp_path: Path) -> None:
    write(tmp_path, "outside", '{"step": 1}\n')
    (tmp_path / "inside").mkdir()
    with running(serving(tmp_path / "inside")) as url:
        assert httpx.get(f"{url}/v1/runs/..%2Foutside").status_code == 404
        assert httpx.get(f"{url}/v1/runs/outside").status_code == 404
