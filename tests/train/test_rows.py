from xinglin import records
from xinglin.train import rows as train_rows


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
