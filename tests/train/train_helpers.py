"""What the tests of training share: rows of a split, and a run that returns the adapter's weights."""

import torch
from safetensors.torch import load_file

from xinglin import config, records, schema
from xinglin.train import stage

POINTS = [("头痛三天。", "考虑紧张性头痛。"), ("可能与劳累有关。", "需要排除偏头痛。"), ("建议神经内科就诊。", "注意休息。")]


def write_split(recipe: config.Recipe, rows: int = 12, question: str = "头痛第{}天怎么办？") -> None:
    answer = schema.Answer.from_points(POINTS).render()
    made = [
        records.Record(
            f"r{i}", f"r{i}", [{"role": "user", "content": question.format(i)}, {"role": "assistant", "content": answer}], {}
        )
        for i in range(rows)
    ]
    records.write_jsonl(recipe.folder / "3-split" / "train.jsonl", made[:-2] if rows > 2 else made)
    records.write_jsonl(recipe.folder / "3-split" / "validation.jsonl", made[-2:])


def run(recipe: config.Recipe, weights: str = "adapter_model.safetensors") -> dict[str, torch.Tensor]:
    folder = recipe.folder / "4-train"
    folder.mkdir(parents=True, exist_ok=True)
    stage.run(recipe, folder)
    return load_file(folder / "adapter" / weights)
