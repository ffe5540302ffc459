"""Export: the adapter merged into its base, as a plain model folder and as GGUF with an Ollama Modelfile, checked against it.

In: ``4-train/adapter``. Out, below ``6-export/``: ``merged/`` (safetensors, tokenizer, card), ``model.gguf`` and ``Modelfile``
where the recipe asks for them, and ``parity.json``: the merged model's greedy answers beside the adapter's, one row a question::

    {"question": "最近总是头晕怎么办？", "same": true, "first_difference": null}
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from xinglin import card, engine, hub, records, schema
from xinglin.config import Recipe
from xinglin.engine import Engine

FOLDER = "6-export"
SETTINGS = ("model", "export")
PARITY_QUESTIONS = 8
PARITY_TOKENS = 96


def inputs(recipe: Recipe) -> list[Path]:
    adapter = recipe.folder / "4-train" / "adapter"
    questions = recipe.folder / "3-split" / "validation.jsonl"
    if not questions.is_file():
        raise ValueError(f"export: {questions} is missing; `xinglin split` writes it")
    return [*hub.tuned_files(adapter), questions]


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    base = hub.find_model(recipe.base, recipe.hub)
    adapter = recipe.folder / "4-train" / "adapter"
    questions = [row.question for row in records.load(inputs(recipe)[-1])][:PARITY_QUESTIONS]
    prompts = [schema.messages(question) for question in questions]
    tuned = Engine.load(str(base), adapter)
    expected = [reply.text for reply in tuned.complete(prompts, max_new_tokens=PARITY_TOKENS)]
    merged = merge(tuned, recipe, folder / "merged")
    got = [reply.text for reply in Engine.load(str(merged)).complete(prompts, max_new_tokens=PARITY_TOKENS)]
    outputs = sorted(merged.iterdir())
    if "gguf" in recipe.export.formats:
        from xinglin import gguf

        outputs += gguf.write(merged, folder)
    rows = [compare(*row) for row in zip(questions, expected, got, strict=True)]
    records.write_json(folder / "parity.json", rows)
    return [*outputs, folder / "parity.json"], {"questions": len(rows), "same_as_adapter": sum(row["same"] for row in rows)}


def merge(tuned: Engine, recipe: Recipe, folder: Path) -> Path:
    """Fold the adapter into the weights and save them in the dtype of the base; the folder appears whole or not at all."""
    temporary = folder.with_name(".merged")
    shutil.rmtree(temporary, ignore_errors=True)
    model = tuned.model.merge_and_unload()
    if not torch.cuda.is_available() and recipe.model != "demo":
        model = model.to(torch.bfloat16)  # a CPU holds the base in fp32, twice its size on the hub
    model.save_pretrained(temporary)
    tuned.tokenizer.save_pretrained(temporary)
    identity = {"fingerprint": engine.prompt_fingerprint(tuned.tokenizer), "base": recipe.model}
    records.write_json(temporary / engine.FINGERPRINT, identity)
    records.write_text(temporary / "README.md", card.adapter_card(recipe, {"merged": True}))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def compare(question: str, expected: str, got: str) -> dict[str, Any]:
    """Whether two greedy answers agree, and the first character at which they part."""
    shared = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    same = expected == got
    return {"question": question, "same": same, "first_difference": None if same else shared}
