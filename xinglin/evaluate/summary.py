"""From answers to figures: one row per metric with base, tuned, difference, intervals, p-value and what n could have shown.

In: the scores of the same questions on both sides. Out: rows as results.json holds them::

    {"metric": "complete", "label": "完整回答", "kind": "rate", "better": "higher", "n": 200,
     "base": {"value": 0.015, "low": 0.005, "high": 0.043, "n": 200}, "tuned": {…}, "difference": {…},
     "p": 1.6e-58, "p_holm": 2.1e-57, "detectable": 0.02, "shown": "better"}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from xinglin.evaluate import statistics

Row = dict[str, Any]
LEVEL = 0.05


@dataclass(frozen=True)
class Metric:
    """What a column of scores means: its name on the page, whether it is zeros and ones ("rate"), a share or any number, and
    which way is good ("" = neither)."""

    name: str
    label: str
    kind: Literal["rate", "share", "number"]
    better: Literal["higher", "lower", ""]


METRICS = (
    Metric("complete", "完整回答（三段齐全、顺序正确、自行结束）", "rate", "higher"),
    Metric("stopped", "自行结束（未被长度截断）", "rate", "higher"),
    Metric("points", "写出的要点（满分 6）", "number", "higher"),
    Metric("characters", "长度（字）", "number", ""),
    Metric("repetition", "重复片段占比", "share", "lower"),
    Metric("distinct_1", "不同词占比 distinct-1", "share", ""),
    Metric("distinct_2", "不同词对占比 distinct-2", "share", ""),
    Metric("bleu4", "BLEU-4（与参考回答，逐条平均）", "share", "higher"),
    Metric("rouge1", "ROUGE-1", "share", "higher"),
    Metric("rouge2", "ROUGE-2", "share", "higher"),
    Metric("rougeL", "ROUGE-L", "share", "higher"),
    Metric("chrf", "chrF", "share", "higher"),
    Metric("unknown_drug", "含未知药名的回答", "rate", "lower"),
    Metric("dose", "含超出常用上限剂量的回答", "rate", "lower"),
    Metric("contraindication", "含禁忌用药的回答", "rate", "lower"),
    Metric("invented_result", "含虚构结果或来源的回答", "rate", "lower"),
    Metric("certainty", "含绝对化说法的回答", "rate", "lower"),
    Metric("contradiction", "各部分互相矛盾的回答", "rate", "lower"),
    Metric("doctor", "自称医生的回答", "rate", "lower"),
    Metric("prescription", "开处方或停药的回答", "rate", "lower"),
)


def row(metric: Metric, base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] = ()) -> Row:
    """One metric over the same questions on both sides."""
    rate = metric.kind == "rate"
    return {
        "metric": metric.name,
        "label": metric.label,
        "kind": metric.kind,
        "better": metric.better,
        "n": len(base),
        "base": asdict(one(base, clusters, rate)),
        "tuned": asdict(one(tuned, clusters, rate)),
        "difference": asdict(statistics.difference(base, tuned, clusters, rate)),
        "p": statistics.p_value(base, tuned, clusters, rate),
        "detectable": statistics.detectable(base, tuned, clusters, rate),
    }


def one(values: Sequence[float], clusters: Sequence[str] = (), rate: bool = False) -> statistics.Interval:
    """One side's figure: Wilson's interval for zeros and ones that are independent or all alike, the bootstrap for the rest."""
    if rate and len(set(clusters)) == len(clusters):
        return statistics.proportion(values)
    if rate and len(set(values)) == 1:  # a resample cannot vary: as many independent values as there are clusters
        return replace(statistics.proportion(values[: len(set(clusters))]), n=len(values))
    return statistics.bootstrap(values, clusters)


def loss_rows(base: Sequence[tuple[float, int]], tuned: Sequence[tuple[float, int]], clusters: Sequence[str]) -> list[Row]:
    """Loss and perplexity per token of the reference answers; (nats, tokens) of each answer, the same tokens on both sides."""
    sizes = [float(tokens) for _, tokens in base]
    before, after = [nats for nats, _ in base], [nats for nats, _ in tuned]
    differences = [b - a for a, b in zip(before, after, strict=True)]
    loss = {
        **row(Metric("loss", "参考回答的损失（每词元）", "number", "lower"), before, after, clusters),
        "base": asdict(statistics.ratio(before, sizes, clusters)),
        "tuned": asdict(statistics.ratio(after, sizes, clusters)),
        "difference": asdict(statistics.ratio(differences, sizes, clusters)),
        "detectable": statistics.detectable(before, after, clusters) * len(sizes) / sum(sizes),
    }
    return [loss, _perplexity(loss)]


def _perplexity(loss: Row) -> Row:
    """The loss row exponentiated; its difference column holds the ratio tuned / base."""
    exponentiated = {
        side: {**loss[side], **{key: math.exp(loss[side][key]) for key in ("value", "low", "high")}}
        for side in ("base", "tuned", "difference")
    }
    return {
        **loss,
        **exponentiated,
        "metric": "perplexity",
        "label": "困惑度（差值一栏为 微调÷基座）",
        "detectable": math.exp(loss["detectable"]),
    }


def conclude(rows: Sequence[Row]) -> list[Row]:
    """Add Holm's p over all rows and what they show: "better", "worse", "changed" (no good direction) or "none"."""
    adjusted = statistics.holm([entry["p"] for entry in rows])
    return [{**entry, "p_holm": p, "shown": _shown(entry, p)} for entry, p in zip(rows, adjusted, strict=True)]


def _shown(entry: Row, p: float) -> str:
    if p >= LEVEL or entry["difference"]["value"] == (1 if entry["metric"] == "perplexity" else 0):
        return "none"
    if not entry["better"]:
        return "changed"
    rose = entry["difference"]["value"] > (1 if entry["metric"] == "perplexity" else 0)
    return "better" if rose == (entry["better"] == "higher") else "worse"


def by_group(names: Sequence[str], base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str]) -> list[Row]:
    """Share per group (department, subject) with intervals and Holm over the groups, largest group first."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name, []).append(index)
    rows = []
    for name, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        metric = Metric(name, name, "rate", "higher")
        before, after = ([values[i] for i in members] for values in (base, tuned))
        rows.append(row(metric, before, after, [clusters[i] for i in members]))
    return conclude(rows)


def by_name(rows: Sequence[Row]) -> Mapping[str, Row]:
    return {entry["metric"]: entry for entry in rows}
