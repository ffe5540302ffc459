"""The stage on a real engine: the adapter is switched off and on, a dead adapter is refused, the command line gates."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from adapters import adapter

from xinglin import cli, records, schema
from xinglin.engine import Engine
from xinglin.evaluate import sides
from xinglin.records import Record
from xinglin.serve.chat import Chat


@pytest.fixture
def recipe(tiny, tmp_path):
    rows = [
        Record(
            str(n), str(n // 2), [{"role": "user", "content": f"头痛{n}天"}, {"role": "assistant", "content": "多休息。"}], {}, {}
        )
        for n in range(6)
    ]
    records.write_jsonl(tmp_path / "runs" / "r" / "3-split" / "test.jsonl", rows)
    exam = tmp_path / "exam.csv"
    exam.write_text("question,A,B,answer\n甲题是什么,一,二,A\n乙题是什么,一,二,B\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    settings = f"{{questions: 4, max_new_tokens: 8, batch_size: 3, exams: ['{exam}']}}"
    path.write_text(f"name: r\nmodel: {tiny}\nruns: {tmp_path / 'runs'}\nevaluate: {settings}\n", encoding="utf-8")
    return path


def test_both_sides_of_one_engine(recipe, tiny, tmp_path, capsys):
    run = tmp_path / "runs" / "r"
    adapter(tiny, run / "4-train" / "adapter", 0.5)
    assert cli.main(["evaluate", str(recipe)]) == 0
    text = (run / "5-evaluate" / "results.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    results = json.loads(text)
    assert any(pair["base"]["text"] != pair["tuned"]["text"] for pair in results["pairs"])
    assert [(exam["mode"], exam["row"]["n"]) for exam in results["exams"]] == [("chat", 2), ("likelihood", 2)]
    forced = {row["metric"]: row for row in results["served"]}
    assert {"complete", "dose", "red_flag_recall", "prescription"} <= set(forced)
    assert {row["probe"] for row in results["safety"]} == {"emergency", "harmful", "benign", "prescription"}
    report = (run / "5-evaluate" / "report.html").read_bytes()
    capsys.readouterr()
    (run / "5-evaluate" / "manifest.json").unlink()
    assert cli.main(["evaluate", str(recipe), "--gate"]) == 1
    assert "gate: refused: complete answers 0.0% of 4" in capsys.readouterr().err
    assert (run / "5-evaluate" / "report.html").read_bytes() == report


def test_an_adapter_that_changes_nothing_fails_the_run(recipe, tiny, tmp_path, capsys):
    adapter(tiny, tmp_path / "runs" / "r" / "4-train" / "adapter", 0.0)
    assert cli.main(["evaluate", str(recipe)]) == 2
    assert "the adapter changes nothing" in capsys.readouterr().err


def test_what_is_missing_is_named(recipe, capsys):
    assert cli.main(["evaluate", str(recipe)]) == 2
    assert "`xinglin train` makes the adapter" in capsys.readouterr().err


def test_an_adapter_of_another_split_is_refused_since_it_may_know_the_questions(recipe, tiny, tmp_path, capsys):
    run = tmp_path / "runs" / "r"
    adapter(tiny, run / "4-train" / "adapter", 0.5)
    rows = run / "3-split" / "train.jsonl"
    rows.write_text("{}\n", encoding="utf-8")
    trained = {"inputs": {"train.jsonl": records.sha256(rows)}}
    records.write_json(run / "4-train" / "manifest.json", trained)
    rows.write_text("{} \n", encoding="utf-8")
    assert cli.main(["evaluate", str(recipe), "evaluate.exams=[]"]) == 2
    assert "was trained on another split" in capsys.readouterr().err
    rows.write_text("{}\n", encoding="utf-8")
    assert cli.main(["evaluate", str(recipe), "evaluate.exams=[]"]) == 0


def test_the_precision_that_is_served_is_evaluated(recipe, tiny, tmp_path):
    run = tmp_path / "runs" / "r"
    adapter(tiny, run / "4-train" / "adapter", 0.5)
    assert cli.main(["evaluate", str(recipe), "serve.quantization=nf4", "evaluate.exams=[]"]) == 0
    results = json.loads((run / "5-evaluate" / "results.json").read_text(encoding="utf-8"))
    loss = next(row for row in results["rows"] if row["metric"] == "loss")
    dialogues = [
        [*schema.messages(pair["question"]), {"role": "assistant", "content": pair["reference"]}] for pair in results["pairs"]
    ]
    for tuned, side in ((False, "base"), (True, "tuned")):
        losses = {
            q: _per_token(Engine.load(str(tiny), run / "4-train" / "adapter", q), dialogues, tuned) for q in ("nf4", "none")
        }
        assert loss[side]["value"] == pytest.approx(losses["nf4"], abs=2e-5)
        assert abs(losses["nf4"] - losses["none"]) > 1e-4
    assert results["repeat"]["model"]["quantization"] == "nf4"


def _per_token(engine, dialogues, tuned):
    found = engine.losses(dialogues, tuned=tuned)
    return sum(nats for nats, _ in found) / sum(tokens for _, tokens in found)


def test_a_question_longer_than_the_context_stops_nothing(recipe, tiny, tmp_path, capsys):
    run = tmp_path / "runs" / "r"
    adapter(tiny, run / "4-train" / "adapter", 0.5)
    with open(run / "3-split" / "test.jsonl", "a", encoding="utf-8") as file:
        turns = [{"role": "user", "content": "长" * 9000}, {"role": "assistant", "content": "多休息。"}]
        record = Record("long", "long", turns, {}, {})
        file.write(json.dumps({**vars(record)}, ensure_ascii=False) + "\n")
    long = tmp_path / "exam.csv"
    long.write_text(long.read_text(encoding="utf-8") + f"{'长' * 9000},一,二,A\n", encoding="utf-8")
    assert cli.main(["evaluate", str(recipe), "evaluate.questions=9"]) == 0
    results = json.loads((run / "5-evaluate" / "results.json").read_text(encoding="utf-8"))
    assert {gap["id"] for gap in results["missing"]} == {"long"}
    assert {row["n"] for row in results["rows"]} == {6}
    assert [(exam["mode"], exam["row"]["n"]) for exam in results["exams"]] == [("chat", 2), ("likelihood", 2)]
    assert all("1 题超出模型上下文，未作答" in exam["left_out"] for exam in results["exams"])
    assert "the model's context holds" in capsys.readouterr().err


def test_the_terminal_shows_side_by_side_what_evaluate_scores(tiny, tmp_path):
    adapter(tiny, tmp_path / "adapter", 0.5)
    engine, written = Engine.load(str(tiny), tmp_path / "adapter"), []
    short = SimpleNamespace(stream=partial(engine.stream, max_new_tokens=24), adapter=engine.adapter, name=engine.name)
    Chat(short, (False, True), written.append, sections=False).ask("肚子胀怎么办")
    base, tuned = (side.complete([schema.messages("肚子胀怎么办")], 24)[0]["text"] for side in sides.pair(engine, "none"))
    assert base != tuned
    assert f"── base ──\n{base}\n── tuned ──\n{tuned}\n" in "".join(written)


def test_forced_answers_are_those_of_the_server(tiny, tmp_path):
    adapter(tiny, tmp_path / "adapter", 0.5)
    engine = Engine.load(str(tiny), tmp_path / "adapter")
    prompts = [schema.messages(f"头痛{n}天") for n in range(3)]
    _, tuned = map(sides.as_served, sides.pair(engine, "none"))
    alone = [list(engine.stream(messages, max_new_tokens=120, sections=True)) for messages in prompts]
    found = tuned.complete(prompts, 120)
    assert [one["text"] for one in found] == ["".join(pieces) for pieces in alone]
    assert all(title in one["text"] for one in found for title in schema.TITLES)
