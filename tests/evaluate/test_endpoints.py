"""Sides and judges behind HTTP: a mock with chosen faults, and our own server with the built-in model, as users start it."""

import json
import os
import subprocess
import sys

import pytest
from adapters import adapter
from mock_endpoint import Mock, faithful

from xinglin import cli, config, llm, schema
from xinglin.evaluate import answers, compare, endpoint, sides
from xinglin.evaluate.sides import Desk

QUESTIONS = ["头痛两天怎么办", "胃疼吃什么药", "咳嗽一周"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No seconds between the tries."""
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of `xinglin serve` with the built-in model; it is called "base" there."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "recipe.yaml").write_text(
        f"name: r\nmodel: demo\nruns: {folder}\nserve: {{port: 0, structure: free}}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "xinglin.cli", "serve", str(folder / "recipe.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        lines = iter(process.stderr.readline, "")
        address = next(line.split()[0] for line in lines if line.startswith("http"))
        assert any(line.startswith("ready") for line in lines)
        yield f"{address}/v1"
        process.terminate()
        process.communicate()


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("\n".join(QUESTIONS), encoding="utf-8")
    return path


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_served_model_says_what_the_same_model_says_here(served, questions, tmp_path, capsys):
    command = ["compare", str(config.DEMO / "base"), f"{served}#base", "--questions", str(questions), "--max-new-tokens", "24"]
    assert cli.main([*command, "--output", str(tmp_path / "out")]) == 0
    found = results(tmp_path / "out")
    assert [pair["base"]["text"] for pair in found["pairs"]] == [pair["tuned"]["text"] for pair in found["pairs"]]
    assert not {"loss", "perplexity", "agreement"} & {row["metric"] for row in found["rows"]}
    assert any("看不到权重" in note or "没有参考回答" in note for note in found["notes"])
    assert "no difference shown" in capsys.readouterr().out


def test_a_base_and_its_adapter_share_one_model(tiny, questions, tmp_path, monkeypatch):
    adapter(tiny, tmp_path / "adapter", 0.5)
    loaded = []
    load = sides.Engine.load
    monkeypatch.setattr(sides.Engine, "load", lambda *given: loaded.append(given) or load(*given))
    compare.two(str(tiny), str(tmp_path / "adapter"), questions, tmp_path / "one", 8)
    compare.two(str(tmp_path / "adapter"), str(tiny), questions, tmp_path / "turned", 8)
    assert len(loaded) == 3
    one, turned = results(tmp_path / "one"), results(tmp_path / "turned")
    assert [pair["base"]["text"] for pair in one["pairs"]] == [pair["tuned"]["text"] for pair in turned["pairs"]]
    assert [pair["tuned"]["text"] for pair in one["pairs"]] == [pair["base"]["text"] for pair in turned["pairs"]]
    assert one["pairs"][0]["base"]["text"] != one["pairs"][0]["tuned"]["text"]


def test_a_question_the_endpoint_refuses_is_missing_and_the_others_count(questions, tmp_path, capsys):
    def script(question, source, asked):
        return "400" if "胃疼" in question else faithful(source)

    with Mock(script=script) as mock:
        command = [
            "compare",
            f"{mock.url}#one",
            f"{mock.url}#two",
            "--questions",
            str(questions),
            "--output",
            str(tmp_path / "out"),
        ]
        assert cli.main(command) == 0
    found = results(tmp_path / "out")
    assert [(gap["side"], gap["question"], gap["reason"]) for gap in found["missing"]] == [
        ("base", "胃疼吃什么药", "HTTP 400: fault 400"),
        ("tuned", "胃疼吃什么药", "HTTP 400: fault 400"),
    ]
    assert {row["n"] for row in found["rows"]} == {2}
    assert "evaluate: no answer of base to '胃疼吃什么药': HTTP 400" in capsys.readouterr().err


def test_an_endpoint_that_is_down_or_refuses_all_keeps_what_came(questions, tmp_path, capsys):
    spent = []

    def script(question, source, asked):
        spent.append(question)
        return "402" if len(spent) > 2 else faithful(source)

    with Mock(script=script) as mock:
        command = [
            "compare",
            f"{mock.url}#one",
            f"{mock.url}#two",
            "--questions",
            str(questions),
            "--output",
            str(tmp_path / "out"),
        ]
        assert cli.main(command) == 2
        assert "the balance is used up" in capsys.readouterr().err
        assert len(answers.read(tmp_path / "out" / "answers.jsonl")) == 2
        mock.endpoint.script = None
        assert cli.main(command) == 0
        assert mock.endpoint.requests == 3 + 4
    (stop,) = endpoint.answer(llm.endpoint(mock.url, "one"), [schema.messages("x")], 8)
    assert "none of 1 answers came (cannot connect" in stop["stop"]


def test_a_judge_that_talks_nonsense_gives_missing_verdicts_and_no_marks(served, tmp_path):
    settings = {"judge_url": served, "judge_model": "base"}
    recipe = config.build({"model": "demo", "runs": str(tmp_path), "evaluate": settings})
    pairs = [
        {"id": str(n), "question": q, "reference": "", "base": {"text": "多休息。"}, "tuned": {"text": "去医院。"}}
        for n, q in enumerate(QUESTIONS[:2])
    ]
    (tmp_path / "labels.jsonl").write_text('{"id": "0", "better": "tuned"}\n', encoding="utf-8")
    found = compare.review(recipe, pairs, Desk(tmp_path / "answers.jsonl", 4), tmp_path)
    assert found["winners"] == [None, None]
    assert found["rows"] == []
    assert "2 对、2 组评分无法读出，按缺失处理，不计零分" in found["lines"][0]
    kept = answers.read(tmp_path / "answers.jsonl")
    assert len(kept) == 8 and all(row["text"] for row in kept.values())


def test_a_judge_over_http_is_read_in_both_orders_and_set_beside_people(tmp_path):
    def script(prompt, source, asked):
        if "头痛" in prompt and "<answer1>" in prompt:
            return json.dumps({"better": "1" if "<answer1>\n乙" in prompt else "2"})
        if "胃疼" in prompt and "<answer1>" in prompt:
            return '{"better": "1"}'
        return "500" if "咳嗽" in prompt else "两个都好。"

    both = {"base": {"text": "甲"}, "tuned": {"text": "乙"}}
    pairs = [{"id": str(n), "question": question, "reference": "", **both} for n, question in enumerate(QUESTIONS)]
    labels = [{"id": "0", "better": "tuned"}, {"id": "1", "better": "base"}, {"id": "2", "better": "base"}]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)), encoding="utf-8")
    with Mock(script=script) as mock:
        recipe = config.build({"model": "demo", "evaluate": {"judge_url": mock.url, "judge_model": "judge"}})
        found = compare.review(recipe, pairs, Desk(tmp_path / "answers.jsonl", 4), tmp_path)
    assert found["winners"] == ["tuned", "tie", None]
    assert "1 对、3 组评分无法读出" in found["lines"][0]
    assert found["lines"][1].startswith("与 2 条人工标注一致 50%")
    assert len(answers.read(tmp_path / "answers.jsonl")) == 8  # what did not come is asked again by the next run
