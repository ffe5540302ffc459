"""Exams from a hub on this machine, and what a user gets wrong about them."""

import functools
import json
import os
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest
from mock_hub import Hub

from xinglin import config
from xinglin.evaluate import examine, papers


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "val.jsonl").write_text(
        "".join(
            json.dumps({"question": f"第{n}道题目是什么", "options": {"A": "甲", "B": "乙"}, "answer_idx": "B"}) + "\n"
            for n in range(9)
        ),
        encoding="utf-8",
    )
    (folder / "model.safetensors").write_bytes(b"not wanted")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(entry: str, cache, **variables: str) -> list[str]:
    """Number of questions and files of an entry, or the message; huggingface_hub reads its variables once in a process."""
    code = (
        "from xinglin.evaluate import papers\n"
        f"try: print(len(papers.paper({entry!r}, 4, 1).questions), *[file.name for file in papers.files({entry!r})])\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=True)
    return done.stdout.strip().split("\n")


def test_an_exam_comes_from_the_hub_and_then_from_the_cache(hub, tmp_path):
    assert ask("hf://our/exam", tmp_path, HF_ENDPOINT=hub) == ["4 val.jsonl"]
    assert ask("hf://our/exam", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1") == ["4 val.jsonl"]


def test_a_hub_that_does_not_give_it_is_said_in_one_line(hub, tmp_path):
    (gone,) = ask("hf://our/nothing", tmp_path, HF_ENDPOINT=hub)
    assert gone.startswith("evaluate.exams: hf://our/nothing did not come")
    (unreachable,) = ask("hf://our/exam", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "set HF_ENDPOINT to a mirror" in unreachable


def test_a_folder_of_a_hub_holds_other_files_too(tmp_path):
    import polars

    polars.DataFrame({"question": ["甲题目是什么"], "A": ["一"], "B": ["二"], "answer": ["B"]}).write_parquet(
        tmp_path / "a.parquet"
    )
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {"splits": 3}}, indent=2), encoding="utf-8")
    (tmp_path / "list.json").write_text('["x"]', encoding="utf-8")
    exam = papers.paper(str(tmp_path), 0, 1)
    assert [(question.text, question.answer) for question in exam.questions] == [("甲题目是什么", "B")]
    assert exam.left_out == ["2 题未用：没有题干"]


def test_a_sample_is_fixed_and_counted(tmp_path):
    path = tmp_path / "exam.csv"
    path.write_text("question,A,B,answer\n" + "".join(f"第{n}道题目,一,二,A\n" for n in range(20)), encoding="utf-8")
    exam = papers.paper(str(path), 5, 3)
    assert exam == papers.paper(str(path), 5, 3)
    assert (len(exam.questions), exam.left_out) == (5, ["从 20 题中抽取 5 题"])
    assert len(papers.paper(str(path), 0, 3).questions) == 20


def test_exams_without_the_harness_are_one_line_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(examine, "find_spec", lambda name: None)
    recipe = config.build({"model": "demo", "evaluate": {"exams": [str(tmp_path)]}})
    with pytest.raises(ValueError, match=r"pip install 'xinglin\[exams\]'"):
        examine.inputs(recipe)
    assert examine.inputs(config.build({"model": "demo"})) == []
