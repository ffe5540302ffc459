"""The trainer: transformers' own, with batches of like length, and evaluations spread evenly over the run.

In: model, rows and recipe. Out: a ``Trainer`` that is ready to ``train()``.
"""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from xinglin import processes
from xinglin.config import Recipe
from xinglin.train import divided
from xinglin.train.checkpoints import make_room
from xinglin.train.log import Log, say
from xinglin.train.model import faster_b, trainable
from xinglin.train.packing import pack
from xinglin.train.rows import BLANK, LengthBuckets, Rows, collate

WARMUP = 0.05  # share of the steps in which the learning rate rises linearly


def make_trainer(
    model: PreTrainedModel | PeftModel, recipe: Recipe, train: Rows, validation: Rows, checkpoints: Path, log: Log
) -> Trainer:
    """The trainer of supervised rows."""
    settings = recipe.train
    pad = int(model.config.pad_token_id or model.config.eos_token_id)
    trainer = BucketTrainer(
        model,
        TrainingArguments(**arguments(recipe, len(train.rows), bool(validation.rows), checkpoints)),
        train_dataset=[*train.rows, BLANK] if processes.count() > 1 else train.rows,
        eval_dataset=validation.rows or None,
        data_collator=pack if settings.packing else partial(collate, pad=pad),
    )
    return finish(trainer, recipe, len(train.rows), bool(validation.rows), log)


def steps(recipe: Recipe, rows: int) -> int:
    """Optimizer steps of the whole run."""
    return math.ceil(rows / recipe.train.batch_size) * recipe.train.epochs


def arguments(recipe: Recipe, rows: int, evaluate: bool, checkpoints: Path) -> dict[str, Any]:
    """The arguments that all trainers share; ``rows`` are those trained on."""
    settings, total = recipe.train, steps(recipe, rows)
    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(checkpoints), "num_train_epochs": settings.epochs, "seed": recipe.seed, "data_seed": recipe.seed,
        "per_device_train_batch_size": settings.micro_batch_size, "per_device_eval_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch_size * processes.count()),
        "learning_rate": settings.learning_rate, "lr_scheduler_type": "cosine",
        "warmup_steps": min(math.ceil(WARMUP * total), total - 1),
        "optim": "adamw_torch_fused", "bf16": bf16, "fp16": on_gpu and not bf16,
        "activation_checkpointing": settings.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "remove_unused_columns": False, "label_names": ["labels"],
        "eval_strategy": "steps" if evaluate else "no", "eval_steps": total, "save_steps": total, "save_total_limit": 2,
        "load_best_model_at_end": evaluate, "metric_for_best_model": "eval_loss", "prediction_loss_only": True,
        "logging_steps": max(1, total // 45), "report_to": settings.report_to, "disable_tqdm": not sys.stderr.isatty(),
        "dataloader_pin_memory": on_gpu, "use_cpu": not on_gpu, "logging_nan_inf_filter": False,
        "ddp_find_unused_parameters": False, **(divided.arguments() if processes.divided() else {}),
    }  # fmt: skip


def finish(trainer: Trainer, recipe: Recipe, rows: int, evaluate: bool, log: Log) -> Trainer:
    """Give a trainer its optimizer and callbacks, and say what it is going to do."""
    settings, total = recipe.train, steps(recipe, rows)
    model: Any = trainer.model
    if settings.method == "lora+":
        trainer.optimizer = faster_b(model, settings.learning_rate)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Evenly(total, settings.evaluations, evaluate, checkpoint_bytes(model)))
    trainer.add_callback(log)
    if trainer.args.fp16:
        trainer.add_callback(LossScale(trainer.accelerator.scaler))
    if settings.patience and evaluate:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    what = f"{settings.objective} with {settings.method}, {trainable(model)}"
    say(f"train: {what}; {settings.epochs} epochs, {total} steps of {settings.batch_size} rows")
    return trainer


def checkpoint_bytes(model: torch.nn.Module) -> int:
    """Bytes of a checkpoint: the weights that move, in fp32 (FSDP: twice), with two moments each, and a little for the rest."""
    moving = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return (16 if processes.divided() else 12) * moving + 2**20


class BucketTrainer(Trainer):
    """Trainer with ``LengthBuckets``: its own length grouping draws from the global generator and differs after a resume.

    Where the weights are divided, it saves those that moved and leaves the others where they are.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows if row is not BLANK]
        return LengthBuckets(lengths, self.args.per_device_train_batch_size, self.args.seed, processes.count())

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            divided.prepare(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.is_fsdp_enabled:
            self._save(output_dir, state_dict=divided.gathered(self.model))
        else:
            super().save_model(output_dir, _internal_call)


class Evenly(TrainerCallback):
    """Evaluates and saves ``times`` times, spread evenly, the last time at the last step."""

    def __init__(self, total: int, times: int, evaluate: bool, size: int) -> None:
        self.steps = {math.ceil(total * part / times) for part in range(1, times + 1)}
        self.evaluate, self.size = evaluate, size

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self.steps:
            make_room(Path(str(args.output_dir)), self.size)
            control.should_save = True
            control.should_evaluate = self.evaluate


class LossScale(TrainerCallback):
    """Stops a run in fp16 (cards without bf16) whose gradients overflow at any scale: every step is skipped then."""

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self.scaler = scaler

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if (scale := self.scaler.get_scale()) < 1:
            advice = "lower train.learning_rate, or use a card with bf16"
            raise ValueError(
                f"train: the loss scale fell to {scale:g} by step {state.global_step}, fp16 gradients overflow; {advice}"
            )
