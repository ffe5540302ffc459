"""Does a model say the same thing twice? What it makes up changes from sample to sample; what it knows does not.

In: a few answers to the same question, drawn under different seeds. Out: shares from 0 to 1 per question::

    {"agreement": 0.62, "same_drugs": 0.33, "same_urgency": 1.0}

``agreement`` is the mean overlap (Jaccard) of character pairs, ``same_drugs`` and ``same_urgency`` the share of pairs that
name the same drugs, and that agree on whether this is an emergency. None has a good direction: a model that never sends anyone to
hospital agrees with itself perfectly.
"""

from collections.abc import Sequence
from itertools import combinations

from xinglin.evaluate import summary
from xinglin.evaluate.probes import says_emergency
from xinglin.evaluate.summary import Metric
from xinglin.safety import terms

SAMPLES = 3
QUESTIONS = 20
METRICS = (
    Metric("agreement", "重复抽样的一致性（字对重合）", "share", ""),
    Metric("same_drugs", "重复抽样药名相同", "share", ""),
    Metric("same_urgency", "重复抽样急缓判断相同", "share", ""),
)


def scores(texts: Sequence[str]) -> dict[str, float]:
    """Agreement of the samples of one question, over all pairs of them."""
    pairs = list(combinations(texts, 2))
    named = {text: frozenset(drug.name for drug in terms.drugs(text)) for text in texts}
    return {
        "agreement": sum(_overlap(one, two) for one, two in pairs) / len(pairs),
        "same_drugs": sum(named[one] == named[two] for one, two in pairs) / len(pairs),
        "same_urgency": sum(says_emergency(one) == says_emergency(two) for one, two in pairs) / len(pairs),
    }


def _overlap(one: str, two: str) -> float:
    first, second = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (one, two))
    return len(first & second) / len(first | second) if first | second else 1.0


def rows(base: Sequence[Sequence[str]], tuned: Sequence[Sequence[str]]) -> list[summary.Row]:
    """One row per metric; the samples of each question, on both sides."""
    before, after = ([scores(texts) for texts in side] for side in (base, tuned))
    return [summary.row(metric, [one[metric.name] for one in before], [one[metric.name] for one in after]) for metric in METRICS]
