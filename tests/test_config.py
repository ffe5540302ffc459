from pathlib import Path

import pytest

from xinglin import config

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_named_after_its_file(path):
    assert config.load(path).name == path.stem


def test_overrides_reach_sections_and_lists(tmp_path):
    recipe = config.load(write(tmp_path, "model: demo\n"), ["train.epochs=1", "data=[a.jsonl,b.csv]", "name=mine"])
    assert (recipe.train.epochs, recipe.data, recipe.name) == (1, ("a.jsonl", "b.csv"), "mine")


BAD = [
    ("model: demo\nlearning_rate: 1\n", [], "unknown key learning_rate; did you mean train.learning_rate?"),
    ("model: demo\ntrain: {learning_rat: 1}\n", [], "unknown key train.learning_rat; did you mean train.learning_rate?"),
    ("model: demo\n", ["train.lr=1"], "unknown key train.lr; did you mean train.learning_rate?"),
    ("model: demo\n", ["trian.epochs=1"], "unknown key trian"),
    ("model: demo\n", ["zzz=1"], "unknown key zzz; docs/recipe.md lists the keys"),
    ("model: demo\n", ["train.rank=0"], "train.rank=0: input should be greater than or equal to 1"),
    ("model: demo\n", ["train.epochs=many"], "train.epochs='many'"),
    ("model: demo\n", ["train.batch_size=6"], "train.batch_size=6 is not a multiple of train.micro_batch_size=4"),
    ("model: demo\n", ["epochs"], "argument 'epochs': overrides are written key=value"),
    ("data: [a]\n", [], "key model is missing"),
    ("- a\n", [], "holds a list, not keys and values"),
    ("model: [\n", [], "not YAML"),
    ("model: demo\nname: ../x\n", [], "name='../x'"),
]


@pytest.mark.parametrize(("text", "overrides", "message"), BAD)
def test_a_wrong_recipe_is_one_line_that_names_the_key(tmp_path, text, overrides, message):
    with pytest.raises(ValueError) as error:
        config.load(write(tmp_path, text), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_recipe_says_where_recipes_are(tmp_path):
    with pytest.raises(ValueError, match="recipes that come with Xinglin are in recipes/"):
        config.load(tmp_path / "none.yaml")


def test_every_key_has_a_doc_and_there_are_at_most_sixty():
    keys = config.keys()
    assert [key for key, doc in keys.items() if not doc and "." in key] == []
    assert len(keys) <= 60


def test_the_page_of_keys_is_the_one_the_code_makes():
    page = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == config.table(), "python -m xinglin.config > docs/recipe.md"
