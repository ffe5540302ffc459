"""The stage on a real engine: the adapter is switched off and on, a dead adapter is refused, the command line gates."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from xinglin import cli, records
from xinglin.engine import load_tokenizer, prompt_fingerprint
from xinglin.records import Record


def adapter(base, folder, spread: float) -> None:
    """An adapter whose B matrices have this standard deviation; 0 is an adapter that changes nothing."""
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=spread)
    model.save_pretrained(folder)
    records.write_json(folder / "xinglin.json", {"fingerprint": prompt_fingerprint(load_tokenizer(base))})


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
