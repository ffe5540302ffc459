import json
from pathlib import Path

import pytest

from xinglin import config, engine, records, schema
from xinglin.train import rows as train_rows
from xinglin.train import stage


def test_over_long_rows_are_dropped_and_counted_never_cut(recipe, tokenizer):
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    lengths = [len(row["input_ids"]) for row in train_rows.tokenize(rows, tokenizer, 1000).rows]
    limit = max(lengths) - 1
    kept = train_rows.tokenize(rows, tokenizer, limit)
    assert kept.dropped == sum(length > limit for length in lengths) > 0
    assert all(row["labels"][-2] == tokenizer.eos_token_id for row in kept.rows)  # the template ends in a line break


def test_a_limit_on_rows_takes_a_fixed_sample(recipe):
    rows = records.load(recipe.folder / "3-split" / "train.jsonl")
    limited = recipe.model_copy(update={"train": recipe.train.model_copy(update={"rows": 4})})
    assert train_rows.sample(rows, limited) == train_rows.sample(rows, limited) != rows[:4]
    assert len(train_rows.sample(rows, limited)) == 4
    assert train_rows.sample(rows, recipe) == rows


def general(folder: Path, rows: int) -> Path:
    path = folder / "general.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}加{n}是多少？", "answer": f"是{2 * n}。"}) + "\n" for n in range(rows)))
    return path


@pytest.mark.parametrize(("available", "mixed"), [(50, 10), (4, 4)])
def test_replay_mixes_in_its_share_under_the_models_own_prompt(recipe, tokenizer, tmp_path, capsys, available, mixed):
    own = train_rows.tokenize(records.load(recipe.folder / "3-split" / "train.jsonl"), tokenizer, 400)
    settings = recipe.train.model_copy(update={"replay": config.Replay(file=general(tmp_path, available), share=0.5)})
    all_rows = train_rows.replay(own, tokenizer, recipe.model_copy(update={"train": settings})).rows
    assert len(all_rows) == 10 + mixed
    assert all_rows == train_rows.replay(own, tokenizer, recipe.model_copy(update={"train": settings})).rows
    assert schema.TITLES[0] not in tokenizer.decode(all_rows[-1]["input_ids"])
    said = capsys.readouterr().err
    assert f"{mixed} general rows" in said
    assert ("has 4" in said) == (mixed == 4)


def test_replay_counts_as_an_input_and_must_be_there(recipe, tmp_path):
    settings = recipe.train.model_copy(update={"replay": config.Replay(file=tmp_path / "none.jsonl", share=0.1)})
    with pytest.raises(ValueError, match=r"train\.replay: .*none\.jsonl: no such file"):
        stage.inputs(recipe.model_copy(update={"train": settings}))
    path = general(tmp_path, 2)
    settings = recipe.train.model_copy(update={"replay": config.Replay(file=path, share=0.1)})
    assert stage.inputs(recipe.model_copy(update={"train": settings}))[-1] == path


def test_texts_are_cut_into_rows_that_lose_no_token(recipe, tokenizer):
    records_ = records.load(recipe.folder / "3-split" / "train.jsonl")[:2]
    rows = train_rows.texts(records_, tokenizer, 50).rows
    ids = [token for row in rows for token in row["input_ids"]]
    text = "\n".join(turn["content"] for turn in records_[0].messages)
    assert tokenizer.decode(ids).startswith(f"{text}<|im_end|>")
    assert all(row["labels"] == [engine.IGNORED, *row["input_ids"][1:]] and len(row["input_ids"]) <= 50 for row in rows)


def test_the_length_table_counts_every_row():
    table = train_rows.length_table([3, 8, 9, 64], 64, 2).splitlines()
    assert table[0] == "tokens in a row    rows"
    assert [line.split() for line in (table[1], table[2], table[-1])] == [
        ["1", "-", "8", "2"],
        ["9", "-", "16", "1"],
        ["over", "64", "2", "dropped"],
    ]
    assert sum(int(line.split()[3]) for line in table[1:-1]) == 4
