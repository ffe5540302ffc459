import json

import pytest

from xinglin import config, doctor, export, planner, records, schema
from xinglin.engine import Engine
from xinglin.train import stage


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny) -> config.Recipe:
    folder = tmp_path_factory.mktemp("runs")
    values = {"epochs": 2, "learning_rate": 5e-3, "rank": 4, "evaluations": 1}
    made = config.build(
        {"name": "t", "model": str(tiny), "runs": folder, "train": values, "export": {"formats": ["merged", "gguf"]}}
    )
    answer = schema.Answer.from_points([("甲。", "乙。"), ("丙。", "丁。"), ("戊。", "己。")]).render()
    turns = [{"role": "user", "content": "头痛怎么办？"}, {"role": "assistant", "content": answer}]
    for name in ("train", "validation"):
        records.write_jsonl(
            made.folder / "3-split" / f"{name}.jsonl", [records.Record(str(i), str(i), turns, {}) for i in range(8)]
        )
    (made.folder / "4-train").mkdir()
    stage.run(made, made.folder / "4-train")
    (made.folder / "6-export").mkdir()
    export.run(made, made.folder / "6-export")
    return made


def test_the_merged_model_answers_like_the_adapter_and_not_like_the_base(recipe, tiny):
    rows = json.loads((recipe.folder / "6-export" / "parity.json").read_text())
    assert [row["same"] for row in rows] == [True] * 8
    prompt = [schema.messages("头痛怎么办？")]
    texts = [
        Engine.load(str(path)).complete(prompt, max_new_tokens=24)[0].text
        for path in (tiny, recipe.folder / "6-export" / "merged")
    ]
    assert texts[0] != texts[1]


def test_gguf_holds_the_weights_tokens_and_template(recipe):
    import gguf
    from safetensors.torch import load_file

    merged = load_file(recipe.folder / "6-export" / "merged" / "model.safetensors")
    reader = gguf.GGUFReader(recipe.folder / "6-export" / "model.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(merged)
    written = tensors["blk.1.ffn_down.weight"].data
    assert abs(written.astype("float32") - merged["model.layers.1.mlp.down_proj.weight"].float().numpy()).max() < 1e-3
    assert len(reader.fields["tokenizer.ggml.tokens"].data) == 4096
    assert "<|im_start|>" in str(reader.fields["tokenizer.chat_template"].contents())


def test_modelfile_carries_prompt_and_stop_token(recipe):
    text = (recipe.folder / "6-export" / "Modelfile").read_text(encoding="utf-8")
    assert schema.SYSTEM in text
    assert 'PARAMETER stop "<|im_end|>"' in text


def test_first_difference_is_the_character_where_answers_part():
    assert export.compare("问", "一二三", "一二四")["first_difference"] == 2
    assert export.compare("问", "一二", "一二三")["first_difference"] == 2
    assert export.compare("问", "一二", "一二")["same"]


def test_doctor_names_what_is_missing_and_what_is_too_large(recipe, monkeypatch):
    assert doctor.problems(recipe.model_copy(update={"data": ("none.jsonl",)})) == [
        "data none.jsonl: no such file; give data=[FILE]"
    ]
    monkeypatch.setattr(planner, "available_memory", lambda: 1000)
    assert "no setting makes it fit" in doctor.problems(recipe)[0]
