"""The model that is tuned: the base with an adapter on it, its loss, and the folder it is saved in.

In: a base of ``engine.load_base``. Out: a ``PeftModel``; ``save_adapter`` writes ``4-train/adapter/``, a plain PEFT folder::

    adapter_config.json  adapter_model.safetensors  tokenizer.json  chat_template.jinja  xinglin.json
"""

import shutil
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutput

from xinglin import engine, hub, records
from xinglin.config import Recipe


def add_adapter(base: PreTrainedModel, recipe: Recipe) -> PeftModel:
    settings = recipe.train
    if settings.quantization != "none":
        # Trainer turns the checkpointing on itself, without the reentrant kind that needs gradients at the input.
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    base.forward = MethodType(supervised_forward, base)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
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
    config = model.peft_config["default"]
    name, revision = hub.split_revision(recipe.model)
    config.base_model_name_or_path, config.revision = name if recipe.model != "demo" else str(base), revision
    model.save_pretrained(str(temporary))
    tokenizer.save_pretrained(temporary)
    identity = {"fingerprint": engine.prompt_fingerprint(tokenizer), "base": recipe.model}
    records.write_json(temporary / engine.FINGERPRINT, identity)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def trainable(model: PeftModel) -> str:
    chosen, total = model.get_nb_trainable_parameters()
    return f"{chosen:,} of {total:,} parameters trainable"
