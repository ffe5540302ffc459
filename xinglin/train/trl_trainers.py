"""TRL's trainers, fed with our ids: what a user types never becomes a control token, and the prompt is the one of ``schema``.

In: a base, ``Rows`` with ``columns`` and a recipe. Out: a ``Trainer`` of the recipe's objective, ready to ``train()``. The only
thing taken from TRL's trainers is their way to ids.
"""

import warnings
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from xinglin import engine
from xinglin.config import Recipe
from xinglin.engine import IGNORED
from xinglin.train import rewards
from xinglin.train.log import Log
from xinglin.train.model import lora_config, prepare
from xinglin.train.rows import Rows
from xinglin.train.trainer import arguments, finish

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL keeps ORPO among what may still change; its version is pinned
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

GENERATIONS = (8, 4, 2)  # answers to one prompt that GRPO compares; the first that divides the batch


class Pairs(DPOTrainer):
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class Marked(KTOTrainer):
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class Odds(ORPOTrainer):
    def tokenize_row(self, feature: dict[str, list[int]], *_: Any) -> dict[str, list[int]]:
        prompt, found = feature["prompt_ids"], {}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            found[f"{side}_input_ids"] = prompt + answer
            found[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            found[f"{side}_labels"] = [IGNORED] * len(prompt) + answer
        return {**found, "prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}


class Rewarded(GRPOTrainer):
    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        tokenizer: Any = self.processing_class
        return [engine.encode(tokenizer, prompt) for prompt in prompts], None, {}


def make_trainer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, train: Rows, validation: Rows, checkpoints: Path,
    log: Log,
) -> Trainer:  # fmt: skip
    """The trainer of ``train.objective``. The reference of DPO and KTO is the base: the adapter off, or a copy of the weights."""
    objective = recipe.train.objective
    steps = len(train.columns) * (generations(recipe) if objective == "grpo" else 1)
    evaluate = bool(validation.columns) and objective != "grpo"
    shared = arguments(recipe, steps, evaluate, checkpoints)
    make = {"dpo": _dpo, "kto": _kto, "orpo": _orpo, "grpo": _grpo}[objective]
    parts = {
        "model": prepare(base, recipe),
        "train_dataset": datasets.Dataset.from_list(train.columns),
        "eval_dataset": datasets.Dataset.from_list(validation.columns) if evaluate else None,
        "processing_class": tokenizer,
        "peft_config": lora_config(recipe),
    }
    return finish(make(shared, parts, recipe, train), recipe, steps, evaluate, log)


def _dpo(shared: dict[str, Any], parts: dict[str, Any], recipe: Recipe, train: Rows) -> Trainer:
    return Pairs(args=DPOConfig(**shared, max_length=None), **parts)


def _orpo(shared: dict[str, Any], parts: dict[str, Any], recipe: Recipe, train: Rows) -> Trainer:
    return Odds(args=ORPOConfig(**shared, max_length=recipe.train.max_length), **parts)


def _kto(shared: dict[str, Any], parts: dict[str, Any], recipe: Recipe, train: Rows) -> Trainer:
    """Good and bad answers weigh the same in sum, as the method's authors advise."""
    good = sum(one["label"] for one in train.columns)
    bad = len(train.columns) - good
    weights = {"desirable_weight": max(1.0, bad / max(good, 1)), "undesirable_weight": max(1.0, good / max(bad, 1))}
    return Marked(args=KTOConfig(**shared, max_length=None, **weights), **parts)


def _grpo(shared: dict[str, Any], parts: dict[str, Any], recipe: Recipe, train: Rows) -> Trainer:
    """Answers to each prompt, compared with one another by the sum of the rewards that apply."""
    settings = GRPOConfig(
        **shared, num_generations=generations(recipe), max_completion_length=recipe.train.max_length // 2, temperature=1.0
    )
    return Rewarded(args=settings, reward_funcs=[rewards.complete, rewards.faithful, rewards.right_choice], **parts)


def generations(recipe: Recipe) -> int:
    """Answers to one prompt."""
    return next(count for count in GENERATIONS if recipe.train.batch_size % count == 0)
