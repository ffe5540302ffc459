"""The layers of a decoder as training runs them: the numbers of transformers' and PEFT's own, with less work and less kept.

In: a packed sequence (``packing``). Out: hidden states of the positions that predict a supervised token. Nothing else is asked
of the last layer, so all of it but keys and values runs on those only. Where the base is frozen in fp32 on a processor all layers
are ours (``layer``): an autograd function each for groups of linear layers with their LoRA, norms, rotation, the gated unit and
attention. What attends to what, two rows of 9 tokens that begin with the same 4::

    [Part(queries=(0, 9), keys=(0, 9), causal=True), Part((9, 14), (9, 14), True), Part((9, 14), (0, 4), False)]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear, silu

from xinglin import planner
from xinglin.train import packing

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Part:
    """A run of queries that attends to a run of keys; a causal one to those before each query."""

    queries: tuple[int, int]
    keys: tuple[int, int]
    causal: bool


@dataclass(frozen=True)
class Queries:
    """What attends in a layer: ``places`` of the sequence (None: all), in ``parts``; ``kept`` of them go on."""

    parts: list[Part]
    places: torch.Tensor | None = None
    kept: torch.Tensor | None = None


def chosen_hidden(model: Any, ids: torch.Tensor, position_ids: torch.Tensor, chosen: torch.Tensor, fused: bool) -> torch.Tensor:
    """Normed hidden states (n, hidden) of the ``chosen`` places (n,) of a packed sequence; ``model`` is the decoder itself."""
    hidden = model.embed_tokens(ids)
    rotation, layout = model.rotary_emb(hidden, position_ids), packing.layout(position_ids)
    *layers, last = model.layers
    if not fused:
        arguments = {"attention_mask": None, "position_ids": position_ids, "position_embeddings": rotation, **layout}
        for each in layers:
            hidden = each(hidden, **arguments)
        return model.norm(checkpointed(last, partial(last_layer, chosen=chosen, **arguments), hidden)[0])  # type: ignore[no-any-return]
    cos, sin = (part[0, :, None, : part.shape[-1] // 2] for part in rotation)
    hidden = hidden[0]
    for each in layers:
        hidden = checkpointed(each, partial(layer, queries=every_query(**layout), cos=cos, sin=sin), hidden)
    queries = needed_queries(chosen, **layout)
    return norm(model.norm, checkpointed(last, partial(layer, queries=queries, cos=cos, sin=sin), hidden))


def checkpointed(module: Any, run: Any, hidden: torch.Tensor) -> torch.Tensor:
    """``run(module, hidden)``, computed again in the backward pass where the model is told to."""
    if module.gradient_checkpointing and module.training:
        return module._gradient_checkpointing_func(partial(run, module), hidden)  # type: ignore[no-any-return]
    return run(module, hidden)  # type: ignore[no-any-return]


def last_layer(module: Any, hidden: torch.Tensor, chosen: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """transformers' decoder layer, with what follows the attention on the chosen places only."""
    attended = hidden + module.self_attn(hidden_states=module.input_layernorm(hidden), **arguments)[0]
    attended = attended[:, chosen]
    return attended + module.mlp(module.post_attention_layernorm(attended))  # type: ignore[no-any-return]


def layer(module: Any, hidden: torch.Tensor, queries: Queries, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """A decoder layer on (tokens, hidden), or what of it the ``queries`` ask for."""
    attention, mlp, size = module.self_attn, module.mlp, module.self_attn.head_dim
    normed = norm(module.input_layernorm, hidden)
    if queries.places is None:
        q, k, v = linears(normed, attention.q_proj, attention.k_proj, attention.v_proj)
    else:
        k, v = linears(normed, attention.k_proj, attention.v_proj)
        (q,) = linears(normed[queries.places], attention.q_proj)
    q, k, v = (part.view(len(part), part.shape[1] // size, size) for part in (q, k, v))
    if module.self_attn.config.model_type == "qwen3":
        q, k = norm(attention.q_norm, q), norm(attention.k_norm, k)
    places = slice(None) if queries.places is None else queries.places
    q, k = apply(Rotate, q, cos[places], sin[places]), apply(Rotate, k, cos, sin)
    mixed = apply(Attend, q, k, v, queries.parts, attention.scaling).flatten(1)
    if queries.places is not None:
        mixed, hidden = mixed[queries.kept], hidden[queries.places[queries.kept]]
    hidden = hidden + linears(mixed, attention.o_proj)[0]
    gate, up = linears(norm(module.post_attention_layernorm, hidden), mlp.gate_proj, mlp.up_proj)
    return hidden + linears(apply(Gated, gate, up), mlp.down_proj)[0]


# ---------------------------------------------------------------- who attends to whom


def every_query(row_lengths: Sequence[int], common: int) -> Queries:
    """Each row to itself, all but the first to the common beginning, too."""
    ends = _ends(row_lengths)
    rows = [Part((start, end), (start, end), True) for start, end in zip([0, *ends], ends, strict=False)]
    shared = [Part((ends[0], ends[-1]), (0, common), False)] if common else []
    return Queries(rows + shared)


def needed_queries(chosen: torch.Tensor, row_lengths: Sequence[int], common: int) -> Queries:
    """Of each row the run from the first to the last chosen place: to itself, what stands before it, the common beginning."""
    found, ends = chosen.tolist(), _ends(row_lengths)
    parts, places, runs = list[Part](), list[int](), list[range]()
    for start, end in zip([0, *ends], ends, strict=False):
        inside = [place for place in found if start <= place < end]
        if not inside:
            continue
        run = range(inside[0], inside[-1] + 1)
        own = (len(places), len(places) + len(run))
        parts.append(Part(own, (run.start, run.stop), True))
        parts += [Part(own, keys, False) for keys in ((start, run.start), (0, common if start else 0)) if keys[0] < keys[1]]
        runs.append(run)
        places += run
    where = torch.tensor(places, dtype=torch.long)
    return Queries(parts, where, torch.searchsorted(where, chosen))


def _ends(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[: number + 1]) for number in range(len(lengths))]


# ---------------------------------------------------------------- one autograd function each


def apply(function: Any, *arguments: Any) -> Any:
    """An autograd function of this module, whose ``apply`` torch leaves untyped."""
    return function.apply(*arguments)


def norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    return apply(Norm, hidden, module.weight, module.variance_epsilon)  # type: ignore[no-any-return]


def linears(inputs: torch.Tensor, *modules: Any) -> tuple[torch.Tensor, ...]:
    """The outputs of PEFT's LoRA layers that share their input."""
    weights = [
        weight for each in modules for weight in (each.weight, each.bias, each.lora_A.default.weight, each.lora_B.default.weight)
    ]
    return apply(Linears, inputs, [each.scaling["default"] for each in modules], *weights)  # type: ignore[no-any-return]


class Linears(torch.autograd.Function):
    """``x Wᵀ + b + s (x Aᵀ) Bᵀ`` of each (W, b, A, B) in ``weights``; W and b are frozen.

    Where there are more tokens than it costs, ``W + s B A`` is made for the pass: one product then does for two.
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, scales: list[float], *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found, low = [], []
        for scale, (w, bias, a, b) in zip(scales, _fours(weights), strict=True):
            low.append(inputs @ a.T)
            if _worth_adding(inputs, w):
                found.append(linear(inputs, torch.addmm(w, b, a, alpha=scale), bias))
            else:
                found.append(linear(inputs, w, bias).addmm_(low[-1], b.T, alpha=scale))
        ctx.save_for_backward(inputs, *low, *weights)
        ctx.scales = scales
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        inputs, *rest = ctx.saved_tensors
        low, weights = rest[: len(gradients)], rest[len(gradients) :]
        total, found = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None, list[Any]()
        for gradient, narrow, scale, (w, _, a, b) in zip(gradients, low, ctx.scales, _fours(weights), strict=True):
            below = (gradient @ b).mul_(scale)
            found += [None, None, below.T @ inputs, (narrow.T @ gradient).mul_(scale).T]
            if total is None:
                continue
            if _worth_adding(inputs, w):
                total.addmm_(gradient, torch.addmm(w, b, a, alpha=scale))
            else:
                total.addmm_(gradient, w).addmm_(below, a)
        return total, None, *found


def _worth_adding(inputs: torch.Tensor, w: torch.Tensor) -> bool:
    """``W + s B A`` costs its size twice, forward and backward; it saves a product with B and one with A for each token."""
    return len(inputs) * sum(w.shape) > 2 * w.numel()


def _fours(weights: Sequence[Any]) -> list[Any]:
    return [weights[start : start + 4] for start in range(0, len(weights), 4)]


class Norm(torch.autograd.Function):
    """RMSNorm over the last dimension, with a frozen weight; keeps one number a row beside its input."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        scale = inputs.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, scale, weight)
        return (inputs * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        inputs, scale, weight = ctx.saved_tensors
        scaled = gradient * weight
        along = (scaled * inputs).mean(-1, keepdim=True).mul_(scale**3)
        return scaled.mul_(scale).addcmul_(inputs, along, value=-1), None, None


class Gated(torch.autograd.Function):
    """``silu(gate) * up``; the first factor is computed again rather than kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return aten.silu_backward(gradient * up, gate), silu(gate).mul_(gradient)


class Rotate(torch.autograd.Function):
    """Rotary positions: (tokens, heads, size) turned by angles (tokens, 1, size / 2)."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(inputs, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turned(gradient, cos, -sin), None, None


def turned(inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    (a, b), found = inputs.chunk(2, -1), torch.empty_like(inputs)
    first, second = found.chunk(2, -1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return found


class Attend(torch.autograd.Function):
    """Attention part by part, (tokens, heads, size) each. Parts of the same queries add up by their log-sums of weights."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: list[Part], scaling: float
    ) -> torch.Tensor:
        found = torch.empty_like(query)
        q, k, v, out = _by_group(query, key, value, found)
        sums = query.new_empty(q.shape[:3])
        for part in parts:
            (a, b), (c, d) = part.queries, part.keys
            one, its_sums = aten._scaled_dot_product_flash_attention_for_cpu(
                q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], 0.0, part.causal, scale=scaling
            )
            if part.causal:
                out[:, :, a:b], sums[:, :, a:b] = one, its_sums
                continue
            share = (its_sums - sums[:, :, a:b]).sigmoid_()
            out[:, :, a:b].lerp_(one, share[..., None])
            sums[:, :, a:b] = sums[:, :, a:b].logaddexp(its_sums)
        ctx.save_for_backward(query, key, value, found, sums)
        ctx.parts, ctx.scaling = parts, scaling
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, found, sums = ctx.saved_tensors
        q, k, v, out, g = _by_group(query, key, value, found, gradient)
        to_query, to_key, to_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        dq, dk, dv = _by_group(to_query, to_key, to_value)
        for part in ctx.parts:
            (a, b), (c, d) = part.queries, part.keys
            found = aten._scaled_dot_product_flash_attention_for_cpu_backward(
                g[:, :, a:b], q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], out[:, :, a:b], sums[:, :, a:b], 0.0, part.causal,
                scale=ctx.scaling,
            )  # fmt: skip
            dq[:, :, a:b] += found[0]
            dk[:, 0, c:d] += found[1].sum(1)
            dv[:, 0, c:d] += found[2].sum(1)
        return to_query, to_key, to_value, None, None


def _by_group(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *like_query: torch.Tensor) -> list[torch.Tensor]:
    """Views (key heads, query heads of each, tokens, size); keys and values are there once for all their query heads."""
    groups = query.shape[1] // key.shape[1]

    def many(part: torch.Tensor) -> torch.Tensor:
        return part.unflatten(1, (-1, groups)).permute(1, 2, 0, 3)  # type: ignore[no-any-return]

    def few(part: torch.Tensor) -> torch.Tensor:
        return part.transpose(0, 1)[:, None].expand(-1, groups, -1, -1)

    return [many(query), few(key), few(value), *map(many, like_query)]


class Entropy(torch.autograd.Function):
    """Summed cross entropy of ``hidden @ head.T`` against targets; the logits are never held as a whole."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total, gradient = hidden.new_zeros(()), torch.empty_like(hidden)
        for part, goal, own in zip(
            hidden.split(planner.CHUNK), targets.split(planner.CHUNK), gradient.split(planner.CHUNK), strict=True
        ):
            scores = (part @ head.T).log_softmax(-1)
            total -= scores.gather(1, goal[:, None]).sum()
            if ctx.needs_input_grad[0]:
                scores.exp_().scatter_add_(1, goal[:, None], scores.new_full((len(goal), 1), -1.0))
                torch.mm(scores, head, out=own)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.saved_tensors[0] * gradient, None, None
