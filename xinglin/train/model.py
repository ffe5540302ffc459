"""The model that is tuned: the base with an adapter on it or set free as a whole, its loss, and the folder it is saved in.

In: a base of ``engine.load_base``. Out: a model to train; ``save_adapter`` writes ``4-train/adapter/``, a plain PEFT folder (with
``train.method=full`` a plain model folder)::

    adapter_config.json  adapter_model.safetensors  tokenizer.json  chat_template.jinja  xinglin.json
"""

import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.optimizers import create_loraplus_optimizer
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutput

from xinglin import engine, hub, planner, processes, records
from xinglin.config import Recipe
from xinglin.train import layers, packing

RATIO = 16.0  # LoRA+: how much faster B learns than A


def prepare(base: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """The base ready for an adapter; with ``train.method=full`` all of it ready to move, in fp32."""
    settings = recipe.train
    if settings.quantization != "none":
        # Trainer turns the checkpointing on itself, without the reentrant kind that needs gradients at the input.
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    return base.float() if settings.method == "full" else base


def lora_config(recipe: Recipe) -> LoraConfig | None:
    """The adapter of ``train.method``, or None where all weights move."""
    settings = recipe.train
    if settings.method == "full":
        return None
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        init_lora_weights="pissa" if settings.method == "pissa" else True,
    )


def add_adapter(base: PreTrainedModel, recipe: Recipe) -> PreTrainedModel | PeftModel:
    """The model whose own forward gives the loss of supervised tokens."""
    base = prepare(base, recipe)
    base.forward = MethodType(forward_of(base, recipe), base)
    config = lora_config(recipe)
    if config is None:
        return base
    model = get_peft_model(base, config)
    assert isinstance(model, PeftModel)
    return model


def forward_of(base: PreTrainedModel, recipe: Recipe) -> Callable[..., CausalLMOutput]:
    """The forward that suits rows, model and method."""
    settings = recipe.train
    if not settings.packing or settings.objective not in {"sft", "pretrain"}:
        return supervised_forward
    packing.attend_by_row(base)
    shape = base.config
    if shape.model_type not in planner.KNOWN or shape.hidden_act != "silu" or shape.attention_dropout or processes.divided():
        return supervised_forward  # (FSDP gathers the weights of a layer where transformers calls it)
    ours = planner.fused(settings, gpu=torch.cuda.is_available()) and base.dtype == torch.float32
    return partial(packed_forward, fused=ours)


def packed_forward(
    self: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor, position_ids: torch.Tensor,
    num_items_in_batch: torch.Tensor | None = None, fused: bool = False, **_: Any,
) -> CausalLMOutput:  # fmt: skip
    """``supervised_forward`` of packed rows, in which the last layer, too, runs on supervised positions only (``layers``)."""
    targets = labels[0, 1:]
    chosen = (targets != engine.IGNORED).nonzero().flatten()
    hidden, targets = layers.chosen_hidden(self.model, input_ids, position_ids, chosen, fused), targets[chosen]
    if fused:
        total = layers.apply(layers.Entropy, hidden, self.lm_head.weight, targets)
    else:
        total = cross_entropy(self.lm_head(hidden).float(), targets, reduction="sum")
    return CausalLMOutput(loss=total / (num_items_in_batch if num_items_in_batch is not None else len(targets)))


def supervised_forward(
    self: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None, num_items_in_batch: torch.Tensor | None = None, **_: Any,
) -> CausalLMOutput:  # fmt: skip
    """Mean cross entropy with the LM head run on supervised positions only: same loss, less work (docs/training.md)."""
    packed = {} if position_ids is None else {"position_ids": position_ids, **packing.layout(position_ids)}
    logits, targets = engine.supervised(self, input_ids, attention_mask, labels, **packed)
    total = cross_entropy(logits.float(), targets, reduction="sum")
    return CausalLMOutput(loss=total / (num_items_in_batch if num_items_in_batch is not None else len(targets)))


def faster_b(model: PeftModel, rate: float) -> torch.optim.Optimizer:
    """The optimizer of LoRA+, in which B learns ``RATIO`` times faster than A."""
    made = create_loraplus_optimizer(model, torch.optim.AdamW, lr=rate, loraplus_lr_ratio=RATIO, fused=True)
    assert isinstance(made, torch.optim.Optimizer)
    return made


# ---------------------------------------------------------------- saving


def save_start(model: PreTrainedModel | PeftModel, recipe: Recipe, folder: Path) -> Path | None:
    """Keep the adapter as it began, where the saved one is the difference to it (PiSSA takes it out of the base)."""
    if recipe.train.method != "pissa":
        return None
    model.save_pretrained(str(folder))
    return folder


def save_adapter(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, base: Path, folder: Path,
    start: Path | None = None, weights: dict[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """The adapter, or the whole model, as any PEFT or transformers user expects it; the folder appears whole or not at all.

    ``start`` is the folder of ``save_start``: with it the saved adapter fits the untouched base, at twice the rank. ``weights``
    are those to save where the model's own lie divided over processes.
    """
    temporary = folder.with_name(".adapter")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(model, PeftModel):
        config = model.peft_config["default"]
        name, revision = hub.split_revision(recipe.model)
        config.base_model_name_or_path, config.revision = name if recipe.model != "demo" else str(base), revision
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "PiSSA changes the base weights")  # PEFT's conversion loads both at once
            initial = str(start) if start else None
            model.save_pretrained(str(temporary), path_initial_model_for_weight_conversion=initial, state_dict=weights)
    else:
        dtype = engine.compute_dtype()
        if weights is None:
            torch.nn.Module.to(model, dtype=dtype)
        own = weights and {name: value.to(dtype) for name, value in weights.items() if name not in model.all_tied_weights_keys}
        model.save_pretrained(temporary, state_dict=own)
    tokenizer.save_pretrained(temporary)
    identity = {"fingerprint": engine.prompt_fingerprint(tokenizer), "base": recipe.model}
    records.write_json(temporary / engine.FINGERPRINT, identity)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def trainable(model: PreTrainedModel | PeftModel) -> str:
    if not isinstance(model, PeftModel):
        return f"all of {model.num_parameters():,} parameters trainable"
    chosen, total = model.get_nb_trainable_parameters()  # knows that 4-bit weights lie two in a byte
    return f"{chosen:,} of {total:,} parameters trainable"
