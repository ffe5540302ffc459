"""Numbers of one answer, and of one answer against its reference.

In: the text of an answer, why it ended, a reference. Out: a flat dictionary, such as::

    {"complete": 1.0, "stopped": 1.0, "points": 6.0, "characters": 412.0, "repetition": 0.03, "distinct_1": 0.61,
     "distinct_2": 0.93, "bleu4": 0.21, "rouge1": 0.52, "rouge2": 0.24, "rougeL": 0.38, "chrf": 0.27}

BLEU and ROUGE are sacrebleu's and rouge-score's on jieba tokens, chrF is sacrebleu's; all shares run from 0 to 1.
"""

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xinglin import schema

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Scores = dict[str, float]


class Jieba:
    """jieba behind the one method rouge-score asks of a tokenizer; spaces and punctuation are dropped."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def tokens(text: str) -> list[str]:
    """jieba words that hold a letter, a digit or a Chinese character."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return [word for word in jieba.lcut(text.lower()) if any(character.isalnum() for character in word)]


def measure(text: str, finish_reason: str) -> Scores:
    """What needs no reference. ``complete`` asks for three whole sections and for an end the model chose itself."""
    words = tokens(text)
    stopped = finish_reason == "stop"
    return {
        "complete": float(stopped and not schema.check(text)),
        "stopped": float(stopped),
        "points": float(schema.points_present(text)),
        "characters": float(len(text)),
        "repetition": repetition(text),
        "distinct_1": distinct(words, 1),
        "distinct_2": distinct(words, 2),
    }


def repetition(text: str, size: int = 8) -> float:
    """Share of the text's runs of ``size`` characters that occurred before in it; 0 for a text without repeats."""
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(words: Sequence[str], size: int) -> float:
    """Different n-grams of ``size`` words over all of them; 0 for too short a text."""
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def against(text: str, reference: str) -> Scores:
    """Overlap with a reference: sentence BLEU-4 (exponential smoothing), ROUGE-1/2/L F1, chrF2."""
    import sacrebleu

    hypothesis, target = " ".join(tokens(text)), " ".join(tokens(reference))
    rouge = _rouge().score(reference, text)
    return {
        "bleu4": sacrebleu.sentence_bleu(hypothesis, [target], tokenize="none").score / 100,
        **{name: float(rouge[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")},
        "chrf": sacrebleu.sentence_chrf(text, [reference]).score / 100,
    }


@functools.cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Jieba())
