"""Planner: the memory a training run takes, from the model's ``config.json`` and the recipe alone, before anything is loaded.

In: the values of ``config.json``, ``recipe.train``, and what the card holds. Out: bytes by what takes them, largest first::

    {"weights": 15231233024, "activations": 11341398016, "logits": 2919628800, "optimizer": 645922816, …}

Counted are the tensors PyTorch keeps for the backward pass of a Qwen2, Qwen3, Llama or Mistral layer (``layer_activations``); a
test compares them with what autograd really saves.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin import processes
from xinglin.config import Recipe, Train

GIB = 2**30
KNOWN = ("qwen2", "qwen3", "llama", "mistral")
CONTEXT = 600 * 2**20  # what CUDA and its libraries take before the first tensor
CHUNK = 256  # supervised positions whose scores our loss holds at once: they stay in the cache
SLACK = 1.05  # the allocator's blocks are a little larger than the tensors in them


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense decoder. ``linears`` are (inputs, outputs) of one layer's projections, ``biases`` their bias values."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    tied: bool
    biases: int
    norms: int

    @property
    def linears(self) -> list[tuple[int, int]]:
        query, key = self.heads * self.head, self.kv_heads * self.head
        attention = [(self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden)]
        return [*attention, (self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden)]

    @property
    def projections(self) -> int:
        """Parameters of all linear layers but the LM head: those an adapter is put on and a quantized base makes small."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def tables(self) -> int:
        """Parameters of the embeddings and of an LM head of its own."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def small(self) -> int:
        """Parameters of norms and biases."""
        return self.layers * (self.norms + self.biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.projections + self.tables + self.small


@dataclass(frozen=True)
class Plan:
    """Bytes by what takes them, what the card has, and the changes that make it fit (empty: it fits, or none does)."""

    parts: dict[str, int]
    have: int
    changes: tuple[str, ...] = ()

    @property
    def need(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.need <= self.have

    def lines(self) -> str:
        """The plan for a person: ``22.1 GiB of 79.1: weights 14.2, activations 5.0, …``."""
        sizes = ", ".join(f"{name} {size / GIB:.1f}" for name, size in self.parts.items() if size >= 0.05 * GIB)
        return f"{self.need / GIB:.1f} GiB of {self.have / GIB:.1f}{': ' if sizes else ''}{sizes}"

    def problem(self) -> str:
        """One line for a plan that does not fit: what it takes and which change of the recipe mends it."""
        mend = (
            f"set {' '.join(self.changes)}" if self.changes else "no setting makes it fit; take a smaller model or a larger card"
        )
        return f"training takes about {self.lines()}; {mend}"


def knows(folder: Path) -> bool:
    """Whether the arithmetic is for the architecture of a model folder."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") in KNOWN


def for_recipe(recipe: Recipe, folder: Path, rows: "Rows | None" = None) -> Plan:
    """The plan of a recipe on this machine's device, for a model it ``knows``."""
    have, gpu = free_memory()
    devices = processes.count() if processes.divided() else 1
    return plan(read_shape(folder), recipe.train, have, gpu, rows, devices)


def free_memory() -> tuple[int, bool]:
    """Bytes free on the GPU of this process, or in main memory, and whether it is a GPU."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))[0]), True
    return available_memory(), False


def available_memory() -> int:
    """Bytes of main memory that programs can still take: caches count as free."""
    lines = Path("/proc/meminfo")
    if not lines.exists():  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":") for line in lines.read_text(encoding="utf-8").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def read_shape(folder: Path) -> Shape:
    return shape(json.loads((folder / "config.json").read_text(encoding="utf-8")), str(folder))


def shape(values: Mapping[str, Any], name: str = "config.json") -> Shape:
    """Raises ``ValueError`` where the architecture is not one the arithmetic is for."""
    kind = values["model_type"]
    if kind not in KNOWN:
        raise ValueError(f"{name}: memory is planned for {', '.join(KNOWN)}, not for model_type {kind!r}")
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    kv_heads = values.get("num_key_value_heads") or heads
    head = values.get("head_dim") or hidden // heads
    biased = values.get("attention_bias", kind == "qwen2")
    biases = (heads + 2 * kv_heads) * head + (hidden if biased and kind != "qwen2" else 0)
    norms = 2 * hidden + (2 * head if kind == "qwen3" else 0)
    return Shape(
        hidden, values["num_hidden_layers"], heads, kv_heads, head, values["intermediate_size"], values["vocab_size"],
        bool(values.get("tie_word_embeddings", False)), biases if biased else 0, norms,
    )  # fmt: skip


def plan(model: Shape, train: Train, have: int, gpu: bool, rows: "Rows | None" = None, devices: int = 1) -> Plan:
    """What ``train`` takes on one device of ``have`` bytes, and the changes that make it fit.

    ``rows`` are the real lengths; without them every row is taken to be ``train.max_length`` long. ``devices`` are those the
    weights are divided over.
    """
    rows = rows or Rows.longest(train)
    made = Plan(parts(model, train, gpu, rows, devices), have)
    if made.fits:
        return made
    for changes in attempts(train):
        changed = train.model_copy(update=changes)
        if sum(parts(model, changed, gpu, rows, devices).values()) <= have:
            return Plan(made.parts, have, tuple(f"train.{key}={_yaml(value)}" for key, value in changes.items()))
    return made


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def attempts(train: Train) -> Iterator[dict[str, Any]]:
    """Changes from the one that costs least: smaller passes, then recomputation, then a quantized base, and all together."""
    sizes = [
        size for size in (train.micro_batch_size >> shift for shift in range(1, 12)) if size and train.batch_size % size == 0
    ]
    smaller = [{"micro_batch_size": size} for size in sizes]
    checkpointing: list[dict[str, Any]] = [] if train.gradient_checkpointing else [{"gradient_checkpointing": True}]
    quantized: list[dict[str, Any]] = [{"quantization": "nf4"}] if train.quantization != "nf4" else []
    if train.method in {"full", "pissa"}:
        quantized = [{"method": "lora", **change} for change in [{}, *quantized]]
    yield from smaller
    for more in checkpointing:
        yield from ({**more, **less} for less in [{}, *smaller])
    for kind in quantized:
        yield kind
        for more in checkpointing or [{}]:
            yield from ({**kind, **more, **less} for less in [{}, *smaller])


@dataclass(frozen=True)
class Rows:
    """The largest forward pass of a run: tokens computed (padding included) and supervised tokens."""

    tokens: int
    supervised: int
    micro_batch_size: int

    @classmethod
    def longest(cls, train: Train) -> "Rows":
        """Every row of ``max_length``, nine tenths of it supervised."""
        tokens = train.micro_batch_size * train.max_length
        return cls(tokens, math.ceil(0.9 * tokens), train.micro_batch_size)

    def scaled(self, train: Train) -> "Rows":
        """The same rows in passes of another size."""
        share = train.micro_batch_size / self.micro_batch_size
        return Rows(math.ceil(self.tokens * share), math.ceil(self.supervised * share), train.micro_batch_size)


def parts(model: Shape, train: Train, gpu: bool, rows: Rows, devices: int = 1) -> dict[str, int]:
    """Bytes on one device by what takes them, largest first."""
    rows, moving = rows.scaled(train), trained(model, train)
    per_token = activations(model, train, gpu)
    resting = {
        "weights": weights(model, train, gpu),
        "adapter": 0 if train.method == "full" else 4 * moving,
        "gradients": 4 * moving,
        "optimizer": 8 * moving,  # AdamW's two moments in fp32
    }
    if devices > 1:
        resting = {name: math.ceil(size / devices) for name, size in resting.items()} | {"gathered": gathered(model, train, gpu)}
    passing = {
        "activations": int(SLACK * rows.tokens * per_token),
        "logits": int(SLACK * logits(model, train, gpu, rows.supervised)),
    }
    return dict(sorted({**resting, **passing, "library": CONTEXT}.items(), key=lambda part: -part[1]))


def gathered(model: Shape, train: Train, gpu: bool) -> int:
    """Bytes of divided weights that are whole at a time: the layer at work, the next one, and the tables."""
    return int(weights(model, train, gpu) / model.parameters * (2 * model.projections / model.layers + model.tables))


def trained(model: Shape, train: Train) -> int:
    """Parameters that move."""
    if train.method == "full":
        return model.parameters
    low = model.layers * sum(train.rank * (inputs + outputs) for inputs, outputs in model.linears)
    return low + (model.layers * sum(outputs for _, outputs in model.linears) if train.method == "dora" else 0)


def weights(model: Shape, train: Train, gpu: bool) -> int:
    """Bytes of the base. bitsandbytes leaves tables and norms alone, and PEFT turns those into fp32 for training."""
    if train.quantization == "nf4":
        return int(model.projections * (0.5 + 1 / 64 + 4 / 64 / 256)) + 4 * (model.tables + model.small)
    if train.quantization == "int8":
        return model.projections + 4 * (model.tables + model.small)
    if train.method == "full":
        return model.parameters * (6 if gpu else 4)  # fp32, and the bf16 copy that autocast keeps until the backward pass
    return model.parameters * (2 if gpu else 4)


def fused(train: Train, gpu: bool) -> bool:
    """Whether the layers and the loss are ours (``train.layers``): packed rows, a base that is frozen in fp32, plain LoRA."""
    plain = train.method not in {"full", "dora"} and train.quantization == "none"
    return train.packing and plain and not gpu and not processes.divided()


def logits(model: Shape, train: Train, gpu: bool, supervised: int) -> int:
    """Bytes of the scores of supervised tokens and their gradients; our loss holds those of ``CHUNK`` tokens at a time."""
    if fused(train, gpu):
        return min(supervised, CHUNK) * model.vocabulary * 8 + supervised * model.hidden * 4
    return supervised * model.vocabulary * (10 if gpu else 8)


def activations(model: Shape, train: Train, gpu: bool) -> int:
    """Bytes one token leaves behind for the backward pass in all layers; logits are counted apart."""
    layer, residual = layer_activations(model, train, gpu), model.hidden * (2 if gpu else 4)
    if not train.gradient_checkpointing:
        return model.layers * layer + 2 * residual
    return model.layers * residual + int(1.3 * layer)  # each layer's input, and one layer computed again beside its gradients


def layer_activations(model: Shape, train: Train, gpu: bool) -> int:
    """Bytes one token leaves behind in one layer: bf16 under autocast on a GPU, fp32 on a processor."""
    size, full = (2 if gpu else 4), train.method == "full"
    query, key = model.heads * model.head, model.kv_heads * model.head
    norms = 2 * 4 * model.hidden * (2 if full else 1)
    # The inputs of the seven projections. Autocast casts them anew for each; in fp32 query, key and value share one, gate and
    # up another, and the output projection's is the attention's output itself.
    inputs = size * (5 * model.hidden + query) if gpu else size * 2 * model.hidden
    attention = size * 2 * query + size * 2 * (key if train.packing else query) + 4 * model.heads
    outputs = 2 * size * sum(outputs for _, outputs in model.linears) if train.method == "dora" else 0
    ranks = 0 if full else len(model.linears) * size * train.rank
    inner = (3 if fused(train, gpu) else 4) * size * model.inner  # ours computes the activated gate again
    return norms + inputs + attention + inner + outputs + ranks + 8
