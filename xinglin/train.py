"""Tune: a LoRA adapter on the base model, on transformers' Trainer and PEFT.

In: ``3-split/train.jsonl`` and ``validation.jsonl``. Out, below ``4-train/``: ``adapter/`` (a plain PEFT folder with tokenizer
and card), ``checkpoints/``, ``log.jsonl`` and ``log.csv`` (one row per log line), ``loss.png`` and ``report.html``. A log line::

    {"step": 18, "epoch": 0.6, "loss": 1.9312, "learning_rate": 0.0028, "tokens_per_second": 1904.2}
"""

import csv
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, TypedDict

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import CausalLMOutput
from transformers.trainer_callback import PrinterCallback

from xinglin import card, engine, hub, plots, records, schema
from xinglin.config import Recipe
from xinglin.engine import IGNORED

FOLDER = "4-train"
SETTINGS = ("model", "revision", "seed", "train")
POOL = 50  # batches sorted by length together: wide enough to save the padding, narrow enough to mix


class Row(TypedDict):
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Rows:
    """Token rows fit to train on, and how many were dropped because they are longer than ``train.max_length``."""

    rows: list[Row]
    dropped: int

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for row in self.rows for label in row["labels"])


def inputs(recipe: Recipe) -> list[Path]:
    paths = [recipe.folder / "3-split" / name for name in ("train.jsonl", "validation.jsonl")]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"train: {path} is missing; `xinglin split` writes it")
    return paths


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    set_seed(recipe.seed)
    base = hub.find_model(recipe.base, recipe.revision, recipe.hub)
    tokenizer = engine.load_tokenizer(base)
    chosen, held = (records.load(path) for path in inputs(recipe))
    train = tokenize(sample(chosen, recipe), tokenizer, recipe.train.max_length)
    validation = tokenize(held, tokenizer, recipe.train.max_length)
    check(train, recipe)
    show_first(train.rows[0], tokenizer)
    model = add_adapter(engine.load_base(base, recipe.train.quantization), recipe)
    checkpoints = open_checkpoints(folder / "checkpoints", recipe)
    log = Log(folder / "log.jsonl", train)
    trainer = make_trainer(model, recipe, train, validation, checkpoints, log)
    trainer.train(resume_from_checkpoint=last_complete(checkpoints))
    save_adapter(model, tokenizer, recipe, base, folder / "adapter")
    lines = log.lines()
    facts = describe(train, validation, lines)
    records.write_text(folder / "adapter" / "README.md", card.adapter_card(recipe, facts))
    return [*write_curves(folder, lines), folder / "log.jsonl", *sorted((folder / "adapter").iterdir())], facts


# ---------------------------------------------------------------- rows


def sample(rows: list[records.Record], recipe: Recipe) -> list[records.Record]:
    """At most ``train.rows`` of the rows, the same ones under the same seed."""
    limit = recipe.train.rows
    return random.Random(recipe.seed).sample(rows, limit) if 0 < limit < len(rows) else rows


def tokenize(rows: Sequence[records.Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Encode records with every assistant turn supervised; a row over ``max_length`` tokens is dropped, never cut."""
    fitting: list[Row] = []
    for record in tqdm(rows, desc="Map", unit=" rows", file=sys.stderr, mininterval=2):
        dialogue = [
            *schema.messages(record.question, record.history),
            {"role": "assistant", "content": record.answer.strip()},
        ]
        ids, labels = engine.encode_row(tokenizer, dialogue)
        if len(ids) <= max_length:
            fitting.append({"input_ids": ids, "labels": labels})
    return Rows(fitting, len(rows) - len(fitting))


def check(train: Rows, recipe: Recipe) -> None:
    """Raise ``ValueError`` where there is nothing to learn from."""
    say(f"train: {len(train.rows) + train.dropped} rows read, {train.dropped} over {recipe.train.max_length} tokens dropped")
    if not train.rows:
        raise ValueError(f"train: none of {train.dropped} rows fits train.max_length={recipe.train.max_length}; raise it")
    lengths = sorted(len(row["input_ids"]) for row in train.rows)
    say(f"train: {train.tokens} tokens, {train.supervised} supervised; row lengths {describe_lengths(lengths)}")
    empty = sum(all(label == IGNORED for label in row["labels"]) for row in train.rows)
    if empty:
        raise ValueError(f"train: {empty} rows have no supervised token; their answers are empty")


def describe_lengths(lengths: Sequence[int]) -> str:
    """Percentiles of sorted lengths in tokens."""
    return ", ".join(f"p{share} {lengths[min(len(lengths) - 1, len(lengths) * share // 100)]}" for share in (5, 50, 95, 100))


def show_first(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the first row as the model sees it, what is supervised between ⟦ and ⟧."""
    text, inside = "", False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if (label != IGNORED) != inside:
            inside = not inside
            text += "⟦" if inside else "⟧"
        text += f"\0{token}\0"
    parts = text.replace("\0\0", " ").split("\0")
    shown = "".join(str(tokenizer.decode([*map(int, part.split())])) if i % 2 else part for i, part in enumerate(parts))
    say(f"train: first row, supervised text in ⟦⟧:\n{shown}")


def collate(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded (rows, longest) tensors of ids, mask and labels."""
    width = max(len(row["input_ids"]) for row in rows)
    fill = [width - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [pad] * n for row, n in zip(rows, fill, strict=True)]),
        "attention_mask": torch.tensor([[1] * (width - n) + [0] * n for n in fill]),
        "labels": torch.tensor([row["labels"] + [IGNORED] * n for row, n in zip(rows, fill, strict=True)]),
    }


class LengthBuckets(Sampler[int]):
    """Row numbers of one epoch: rows of like length share a forward pass, the passes come in random order.

    The order depends on seed and epoch alone, so that a resumed run meets the same batches. A short last batch stays last.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random_ = random.Random(f"{self.seed}/{self.epoch}")
        rows = random_.sample(range(len(self.lengths)), len(self.lengths))
        pool = self.batch * POOL
        ordered = [
            row for start in range(0, len(rows), pool) for row in sorted(rows[start : start + pool], key=self.lengths.__getitem__)
        ]
        batches = [ordered[start : start + self.batch] for start in range(0, len(ordered), self.batch)]
        short = [batches.pop()] if len(batches[-1]) < self.batch else []
        random_.shuffle(batches)
        return iter([row for batch in [*batches, *short] for row in batch])


# ---------------------------------------------------------------- model


def add_adapter(base: PreTrainedModel, recipe: Recipe) -> PeftModel:
    settings = recipe.train
    if settings.quantization != "none":
        # Trainer turns the checkpointing on itself, without the reentrant kind that needs gradients at the input.
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    base.forward = MethodType(supervised_forward, base)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    assert isinstance(model, PeftModel)
    return model


def supervised_forward(
    self: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | None = None, **_: Any,
) -> CausalLMOutput:  # fmt: skip
    """Mean cross entropy with the LM head run on supervised positions only: same loss, less work (docs/training.md)."""
    logits, targets = engine.supervised(self, input_ids, attention_mask, labels)
    total = cross_entropy(logits.float(), targets, reduction="sum")
    return CausalLMOutput(loss=total / (num_items_in_batch if num_items_in_batch is not None else len(targets)))


def save_adapter(model: PeftModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, base: Path, folder: Path) -> None:
    """The adapter as any PEFT user expects it; the folder appears whole or not at all."""
    temporary = folder.with_name(".adapter")
    shutil.rmtree(temporary, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = recipe.model if recipe.model != "demo" else str(base)
    model.save_pretrained(str(temporary))
    tokenizer.save_pretrained(temporary)
    identity = {"fingerprint": engine.prompt_fingerprint(tokenizer), "base": recipe.model, "revision": recipe.revision}
    records.write_json(temporary / engine.FINGERPRINT, identity)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


# ---------------------------------------------------------------- training


def make_trainer(model: PeftModel, recipe: Recipe, train: Rows, validation: Rows, checkpoints: Path, log: "Log") -> Trainer:
    settings = recipe.train
    total = math.ceil(len(train.rows) / settings.batch_size) * settings.epochs
    say(f"train: {settings.epochs} epochs, {total} steps of {settings.batch_size} rows, {trainable(model)}")
    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.is_bf16_supported()
    arguments = TrainingArguments(
        output_dir=str(checkpoints), num_train_epochs=settings.epochs, seed=recipe.seed, data_seed=recipe.seed,
        per_device_train_batch_size=settings.micro_batch_size, per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch_size,
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=math.ceil(settings.warmup * total),
        optim="adamw_torch_fused", bf16=bf16, fp16=on_gpu and not bf16,
        activation_checkpointing=settings.gradient_checkpointing, activation_checkpointing_kwargs={"use_reentrant": False},
        remove_unused_columns=False, label_names=["labels"],
        eval_strategy="steps" if validation.rows else "no", eval_steps=total, save_steps=total, save_total_limit=2,
        load_best_model_at_end=bool(validation.rows), metric_for_best_model="eval_loss", prediction_loss_only=True,
        logging_steps=max(1, total // 45), report_to=settings.report_to, disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=on_gpu,
    )  # fmt: skip
    callbacks: list[TrainerCallback] = [Evenly(total, settings.evaluations, bool(validation.rows)), log]
    if settings.patience and validation.rows:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    pad = int(model.config.pad_token_id or model.config.eos_token_id)
    trainer = BucketTrainer(
        model, arguments, train_dataset=train.rows, eval_dataset=validation.rows or None,
        data_collator=lambda rows: collate(rows, pad), callbacks=callbacks,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


class BucketTrainer(Trainer):
    """Trainer with ``LengthBuckets``: its own length grouping draws from the global generator and differs after a resume."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows]
        return LengthBuckets(lengths, self.args.per_device_train_batch_size, self.args.seed)


def trainable(model: PeftModel) -> str:
    chosen, total = model.get_nb_trainable_parameters()
    return f"{chosen:,} of {total:,} parameters trainable"


class Evenly(TrainerCallback):
    """Evaluates and saves ``times`` times, spread evenly, the last time at the last step."""

    def __init__(self, total: int, times: int, evaluate: bool) -> None:
        self.steps = {math.ceil(total * part / times) for part in range(1, times + 1)}
        self.evaluate = evaluate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self.steps:
            control.should_save = True
            control.should_evaluate = self.evaluate


class Log(TrainerCallback):
    """Appends every log line to ``log.jsonl`` and shows it on stderr; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, train: Rows) -> None:
        self.path = path
        self.tokens_per_epoch = train.tokens
        self.started = (0.0, 0.0)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        kept = (
            [line for line in self.lines() if line["step"] <= state.global_step]
            if self.path.exists() and state.global_step
            else []
        )
        records.write_jsonl(self.path, kept)
        self.started = (time.monotonic(), state.epoch or 0.0)
        if state.global_step:
            say(f"train: going on from step {state.global_step} of {state.max_steps}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        values = {key: value for key, value in (logs or {}).items() if key in {"loss", "eval_loss", "learning_rate", "grad_norm"}}
        if not values:
            return
        if not all(math.isfinite(value) for key, value in values.items() if key != "learning_rate"):
            raise ValueError(f"train: the loss is not finite at step {state.global_step} ({values}); lower train.learning_rate")
        began, epoch = self.started
        passed = time.monotonic() - began
        rate = ((state.epoch or 0.0) - epoch) * self.tokens_per_epoch / max(passed, 1e-9)
        line = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **values, "tokens_per_second": round(rate, 1)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(records.to_json(line) + "\n")
        if args.disable_tqdm:
            left = passed / max(state.global_step, 1) * (state.max_steps - state.global_step)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            place = f"step {state.global_step}/{state.max_steps}  epoch {line['epoch']:.2f}"
            say(f"{place}  {shown}  {rate:.0f} tokens/s  {left:.0f} s left")


def open_checkpoints(folder: Path, recipe: Recipe) -> Path:
    """The folder of checkpoints; those of other rows or settings are removed, and so are partly written ones."""
    rows = {path.name: records.sha256(path) for path in inputs(recipe)}
    expected = {"rows": rows, "settings": recipe.model_dump(mode="json", include=set(SETTINGS))}
    identity = folder / "identity.json"
    if folder.exists() and (not identity.exists() or json.loads(identity.read_text(encoding="utf-8")) != expected):
        say(f"train: {folder} is of other rows or settings; starting anew")
        shutil.rmtree(folder)
    records.write_json(identity, expected)
    for checkpoint in folder.glob("checkpoint-*"):
        if not complete(checkpoint):
            shutil.rmtree(checkpoint)
    return folder


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer writes its state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt"))


def last_complete(folder: Path) -> str | None:
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return str(found[-1]) if found else None


# ---------------------------------------------------------------- what is left to read


def write_curves(folder: Path, lines: Sequence[dict[str, Any]]) -> list[Path]:
    with records.atomic(folder / "log.csv") as file:
        columns = ["step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second"]
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)
    plots.training_curves(lines, folder / "loss.png", folder / "report.html")
    return [folder / name for name in ("log.csv", "loss.png", "report.html")]


def describe(train: Rows, validation: Rows, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    losses = [line["loss"] for line in lines if "loss" in line]
    evaluations = [(line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line]
    best, step = min(evaluations, default=(math.nan, 0))
    return {
        "rows": len(train.rows), "dropped_over_length": train.dropped, "validation_rows": len(validation.rows),
        "tokens": train.tokens, "supervised_tokens": train.supervised, "steps": lines[-1]["step"],
        "first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4),
        "best_validation_loss": round(best, 4), "best_step": step,
    }  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
