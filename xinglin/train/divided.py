"""Divided: a run whose weights lie in parts on its processes (FSDP2), so that a model trains that no single card holds.

In: a recipe under ``accelerate launch --use_fsdp``. Out: the trainer's arguments, and the weights that moved, put together again
from the parts, on the first process; every other process gets an empty dict::

    {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": tensor of (rank, inputs), …}
"""

from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from xinglin.config import Recipe
from xinglin.train import preference


def refuse(recipe: Recipe) -> None:
    """Raise ``ValueError`` for what does not go with divided weights."""
    settings = recipe.train
    if settings.quantization != "none":
        kept = f"train.quantization={settings.quantization}: bitsandbytes' weights are not divided (FSDP)"
        raise ValueError(f"{kept}; each device holds the small base: start without --use_fsdp")
    if settings.objective in preference.OBJECTIVES or settings.method == "pissa":
        key = "method=pissa" if settings.method == "pissa" else f"objective={settings.objective}"
        raise ValueError(f"train.{key} needs the whole model in each process; start without --use_fsdp")


def arguments() -> dict[str, Any]:
    """What the trainer is told: a part for every decoder layer, checkpoints of whole tensors.

    ``gradient_checkpointing`` stays the model's own: FSDP's gives the layers other names, by which PEFT finds nothing to save.
    """
    settings = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"}
    return {"fsdp": True, "fsdp_config": settings}


def prepare(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Make the accelerator divide. Gradients are summed in fp32, also where a pass runs in bf16.

    On a processor Accelerate 1.15 leaves ``--use_fsdp`` aside without a word (its ``AcceleratorState`` asks for a GPU), though
    ``fully_shard`` runs over gloo as well: there the state is set as Accelerate sets it on a GPU.
    """
    if args.use_cpu:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    if args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def gathered(model: Any) -> dict[str, torch.Tensor]:
    """The weights that moved, whole, in main memory; all processes have to ask at the same time."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    found: dict[str, Any] = get_model_state_dict(model, options=options)
    return found
