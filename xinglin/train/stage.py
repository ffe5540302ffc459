"""Tune: an adapter on the base model, or all of it, on transformers' Trainer, PEFT and TRL.

In: ``3-split/train.jsonl`` and ``validation.jsonl``. Out, below ``4-train/``: ``adapter/`` (a plain PEFT folder with tokenizer
and card), ``checkpoints/``, ``log.jsonl`` and ``log.csv`` (one row per log line), ``loss.png`` and ``report.html``. A log line::

    {"step": 18, "epoch": 0.6, "loss": 1.9312, "learning_rate": 0.0028, "tokens_per_second": 1904.2, "memory_gib": 0.9}
"""

import importlib.metadata
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed

from xinglin import __version__, card, engine, hub, planner, processes, records
from xinglin.config import Recipe
from xinglin.engine import IGNORED
from xinglin.train import divided, preference
from xinglin.train.checkpoints import last_complete, open_checkpoints, whole_or_gone
from xinglin.train.log import Log, say, write_curves
from xinglin.train.model import add_adapter, save_adapter, save_start
from xinglin.train.rows import Rows, check, replay, sample, show_first, texts, tokenize
from xinglin.train.trainer import make_trainer

FOLDER = "4-train"
SETTINGS = ("model", "seed", "train")


def inputs(recipe: Recipe) -> list[Path]:
    paths = [recipe.folder / "3-split" / name for name in ("train.jsonl", "validation.jsonl")]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"train: {path} is missing; `xinglin split` writes it")
    refuse_older(recipe)
    if recipe.train.objective in preference.OBJECTIVES and preference.originals(recipe).is_file():
        paths.append(preference.originals(recipe))
    if recipe.train.replay is not None:
        if not recipe.train.replay.file.is_file():
            raise ValueError(f"train.replay: {recipe.train.replay.file}: no such file")
        paths.append(recipe.train.replay.file)
    return paths


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    divide(recipe)
    find_tracker(recipe)
    set_seed(recipe.seed)
    base = hub.find_model(recipe.base, recipe.hub)
    tokenizer = engine.load_tokenizer(base)
    chosen, held = (records.load(path) for path in inputs(recipe)[:2])
    train = replay(read(sample(chosen, recipe), tokenizer, recipe), tokenizer, recipe)
    validation = read(held, tokenizer, recipe)
    check(train, recipe)
    show_first(train.rows[0], tokenizer)
    plan_memory(recipe, base, train)
    loaded = engine.load_base(base, recipe.train.quantization)
    checkpoints = folder / "checkpoints"
    if processes.first():
        open_checkpoints(checkpoints, identity(recipe))
    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
    log = Log(folder / "log.jsonl", train.tokens)
    trainer = build(loaded, tokenizer, recipe, train, validation, checkpoints, log)
    model: Any = trainer.model
    start = save_start(model, recipe, checkpoints / "start") if processes.first() else None
    with whole_or_gone(folder):
        trainer.train(resume_from_checkpoint=last_complete(checkpoints))
    weights = divided.gathered(model) if processes.divided() else None
    if not processes.first():
        return [], {}
    with whole_or_gone(folder):
        save_adapter(model, tokenizer, recipe, base, folder / "adapter", start, weights)
    lines = log.lines()
    facts = {**describe(train, validation, lines), "made_with": origin(recipe)}
    records.write_text(folder / "adapter" / "README.md", card.adapter_card(recipe, facts))
    return [*write_curves(folder, lines), folder / "log.jsonl", *sorted((folder / "adapter").iterdir())], facts


def refuse_older(recipe: Recipe) -> None:
    """Raise ``ValueError`` where a finished stage before this one was made of other rows than now stand before it.

    A split without a manifest was written by hand, and one whose corpus is gone has nothing to be older than: both are taken.
    """
    stages = [recipe.folder / name for name in ("1-clean", "2-rewrite", "3-split")]
    finished = [stage for stage in stages if (stage / "manifest.json").exists()]
    for earlier, later in pairwise(finished):
        if not records.made_from(later, earlier / "records.jsonl"):
            advice = "" if later == stages[-1] else f", or delete {later}; then `xinglin split`"
            raise ValueError(f"train: {later} is older than {earlier}: run `xinglin {later.name[2:]}`{advice}")


def divide(recipe: Recipe) -> None:
    """Raise ``ValueError`` where the rows of a step, or the weights, cannot be shared out among the processes."""
    if processes.divided():
        divided.refuse(recipe)
        say(f"train: the weights are divided over {processes.count()} processes (FSDP2)")
    settings, devices = recipe.train, processes.count()
    if settings.batch_size % (settings.micro_batch_size * devices):
        rows = f"train.micro_batch_size={settings.micro_batch_size} on {devices} devices"
        raise ValueError(f"train.batch_size={settings.batch_size} is not a multiple of {rows}; change one of them")


def find_tracker(recipe: Recipe) -> None:
    """Raise ``ValueError`` where the tracker of ``train.report_to`` is not installed, before anything is loaded."""
    name = recipe.train.report_to
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ValueError(f"train.report_to={name}: the package is not installed; pip install {name}, or report_to=none")


def plan_memory(recipe: Recipe, base: Path, train: Rows) -> None:
    """Say what the run is going to take. Raises ``ValueError`` before anything is loaded where the GPU is too small."""
    if not planner.knows(base) or recipe.train.objective in preference.OBJECTIVES:  # TRL's passes are not planned
        return
    made = planner.for_recipe(recipe, base, largest_pass(train, recipe))
    say(f"train: memory, planned: {made.lines()}")
    if not made.fits and torch.cuda.is_available():
        raise ValueError(f"train: {made.problem()}")
    if not made.fits:  # main memory may be swapped
        say(f"train: this is more than is free; {made.problem()}")


def largest_pass(train: Rows, recipe: Recipe) -> planner.Rows:
    """Tokens, padding included, and supervised tokens of the forward pass with the longest rows."""
    settings = recipe.train
    longest = sorted((len(row["input_ids"]) for row in train.rows), reverse=True)[: settings.micro_batch_size]
    supervised = sorted((sum(label != IGNORED for label in row["labels"]) for row in train.rows), reverse=True)
    tokens = sum(longest) if settings.packing else len(longest) * longest[0]
    return planner.Rows(tokens, sum(supervised[: settings.micro_batch_size]), settings.micro_batch_size)


def read(chosen: Sequence[records.Record], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Rows:
    """Records as the rows that ``train.objective`` learns from; answers marked as bad are for those that compare."""
    if recipe.train.objective in preference.OBJECTIVES:
        return preference.read(chosen, tokenizer, recipe)
    good = [record for record in chosen if record.meta.get("label", True)]
    if len(good) < len(chosen):
        say(f"train: {len(chosen) - len(good)} rows left out, whose answers are marked as bad (meta.label)")
    encode = texts if recipe.train.objective == "pretrain" else tokenize
    return encode(good, tokenizer, recipe.train.max_length)


def build(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, train: Rows, validation: Rows, checkpoints: Path,
    log: Log,
) -> Trainer:  # fmt: skip
    """The trainer of ``train.objective``, with the model of ``train.method`` in it."""
    if recipe.train.objective not in preference.OBJECTIVES:
        return make_trainer(add_adapter(base, recipe), recipe, train, validation, checkpoints, log)
    try:
        from xinglin.train import trl_trainers  # TRL takes seconds to import
    except ImportError as error:
        needed = f"train.objective={recipe.train.objective} needs {error.name}: pip install 'xinglin[preference]'"
        raise ValueError(needed) from None
    return trl_trainers.make_trainer(base, tokenizer, recipe, train, validation, checkpoints, log)


def identity(recipe: Recipe) -> dict[str, Any]:
    """What checkpoints belong to: the rows and the settings of a run."""
    rows = {path.name: records.sha256(path) for path in inputs(recipe)}
    return {"rows": rows, "settings": recipe.model_dump(mode="json", include=set(SETTINGS))}


def origin(recipe: Recipe) -> dict[str, str]:
    """What it takes to make the same adapter again: seed, fingerprint of the rows, package versions and the commit."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    rows = {path.stem: records.sha256(path)[:16] for path in inputs(recipe)}
    return {"seed": str(recipe.seed), **rows, "xinglin": __version__, "commit": commit(), **versions}


def commit() -> str:
    """The commit of the sources, with a mark where they were changed; empty outside a clone."""
    git = shutil.which("git")
    root = Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return ""
    done = subprocess.run([git, "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def describe(train: Rows, validation: Rows, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    losses = [line["loss"] for line in lines if "loss" in line]
    evaluations = [(line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line]
    best = {"best_validation_loss": round(min(evaluations)[0], 4), "best_step": min(evaluations)[1]} if evaluations else {}
    return {
        "rows": len(train.rows), "dropped_over_length": train.dropped, "validation_rows": len(validation.rows),
        "tokens": train.tokens, "supervised_tokens": train.supervised, "steps": lines[-1]["step"],
        "first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4), **best,
    }  # fmt: skip
