"""Fit the character n-gram classifier that stands beside the triage rules.

In: the development halves of ``tests/safety/sets`` and ``training.jsonl`` there, and, as ordinary questions of low weight,
the questions of two public corpora where the folder ``shared`` lies beside the repository. Out: ``xinglin/safety/ngrams.json``::

    {"bias": -1.2, "threshold": 0.5, "weights": {"胸口": 0.41, ...}}

Run: ``python bench/triage_fit.py``. The held-out halves are never read here. With ``--folds`` it prints, instead of
writing, what five-fold cross-validation over the development halves gives at several thresholds.
"""

import csv
import io
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from triage import development, is_alarm, read

from xinglin.safety import triage

ROOT = Path(__file__).resolve().parent.parent
CORPUS_WEIGHT = 0.05  # of one public question; a few of them are emergencies, and none were labelled
REGULARISATION = 20.0
ROUNDS = 3
SMALLEST = 0.05  # weights nearer to zero are not shipped
THRESHOLD = 1.8  # by cross-validation over the development halves: the lowest that keeps false alarms within the figures


def labelled() -> list[tuple[tuple[str, ...], int, str]]:
    """(turns, 1 for an emergency, set) of everything that may be trained on."""
    rows = [
        (turns, int(name == "emergency"), name) for name in ("emergency", "negative", "ordinary") for turns in development(name)
    ]
    for row in read("training"):
        rows.append(((row["text"],), int(row["label"] == "emergency"), "training"))
    return rows


def corpus(limit: int = 6000) -> list[str]:
    """Questions of the two corpora that the rules raise no alarm for."""
    folder = ROOT.parent / "shared" / "data"
    rows = json.loads((folder / "zhongjing" / "huatuo26M_test.json").read_text(encoding="utf-8"))
    texts = ["".join(row["instruction"]) for row in rows]
    for path in sorted((folder / "toyhom").glob("*.csv")):
        table = csv.DictReader(io.StringIO(path.read_bytes().decode("gb18030", errors="replace")))
        texts += [f"{row['title']}。{row['ask']}" for row in table]
    random.Random(0).shuffle(texts)
    return [text for text in texts[: limit + limit // 10] if not is_alarm(triage.by_rules([text]))][:limit]


def parts(turns: Sequence[str]) -> list[str]:
    return triage.clauses(triage.normalise("\n".join(turns)))


def grams(clauses: Sequence[str]) -> Counter[str]:
    return Counter(gram for clause in clauses for gram in triage.ngrams(clause))


def matrix(documents: Sequence[Counter[str]], index: dict[str, int]) -> csr_matrix:
    """One row per document: counts divided by the root of how many n-grams it has, as the running score does."""
    values: list[float] = []
    columns: list[int] = []
    starts = [0]
    for document in documents:
        scale = 1 / math.sqrt(max(sum(document.values()), 1))
        for gram, count in document.items():
            if gram in index:
                columns.append(index[gram])
                values.append(count * scale)
        starts.append(len(columns))
    return csr_matrix((values, columns, starts), shape=(len(documents), len(index)))


def logistic(features: csr_matrix, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights and, last, the bias of an L2-regularised logistic regression."""

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        margin = np.where(labels > 0, 1.0, -1.0) * (features @ point[:-1] + point[-1])
        slope = -weights * np.where(labels > 0, 1.0, -1.0) / (1 + np.exp(margin))
        value = (weights * np.logaddexp(0, -margin)).sum() + point[:-1] @ point[:-1] / (2 * REGULARISATION)
        return value, np.append(features.T @ slope + point[:-1] / REGULARISATION, slope.sum())

    return minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x


def fit(rows: Sequence[tuple[tuple[str, ...], int, str]], background: Sequence[str]) -> triage.Classifier:
    """Fit on whole texts, then again on them and the run of clauses the last model found most alarming in each of them."""
    texts = [parts(turns) for turns, _, _ in rows] + [parts([text]) for text in background]
    labels = [label for _, label, _ in rows] + [0] * len(background)
    weights = [1.0] * len(rows) + [CORPUS_WEIGHT] * len(background)
    documents = [grams(text) for text in texts]
    model = fit_once(documents, labels, weights)
    for _ in range(ROUNDS):
        runs = [triage.best_run(text, model)[1:] for text in texts]
        documents += [grams(text[first:last]) for text, (first, last) in zip(texts, runs, strict=True)]
        model = fit_once(documents, labels * (len(documents) // len(labels)), weights * (len(documents) // len(labels)))
    return model


def fit_once(documents: Sequence[Counter[str]], labels: Sequence[int], weights: Sequence[float]) -> triage.Classifier:
    seen = Counter(gram for document in documents[: len(documents)] for gram in document)
    index = {gram: place for place, gram in enumerate(sorted(gram for gram, count in seen.items() if count > 1))}
    point = logistic(matrix(documents, index), np.array(labels), np.array(weights))
    kept = {gram: round(float(point[place]), 3) for gram, place in index.items() if abs(point[place]) >= SMALLEST}
    return triage.Classifier(round(float(point[-1]), 3), THRESHOLD, kept)


def folds(rows: list[tuple[tuple[str, ...], int, str]], background: Sequence[str], count: int = 5) -> None:
    random.Random(1).shuffle(rows)
    scores = []
    for fold in range(count):
        model = fit([row for place, row in enumerate(rows) if place % count != fold], background)
        print(len(model.weights), file=sys.stderr)
        for turns, label, name in rows[fold::count]:
            score = max(triage.score(triage.normalise(turn), model) for turn in (*turns, "\n".join(turns)))
            scores.append((name if name != "training" else f"training{label}", score, is_alarm(triage.by_rules(turns))))
    for threshold in (2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0, -0.3):
        line = []
        for name in ("emergency", "training1", "negative", "training0", "ordinary"):
            chosen = [(score > threshold, rule) for found, score, rule in scores if found == name]
            alone = sum(hit for hit, _ in chosen) / len(chosen)
            line.append(f"{name} {alone:.3f} with rules {sum(hit or rule for hit, rule in chosen) / len(chosen):.3f}")
        print(f"{threshold:5.1f}  " + "  ".join(line))


def main() -> None:
    rows, background = labelled(), corpus()
    if "--folds" in sys.argv:
        folds(rows, background)
        return
    model = fit(rows, background)
    path = ROOT / "xinglin" / "safety" / "ngrams.json"
    data = {"bias": model.bias, "threshold": model.threshold, "weights": model.weights}
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(model.weights)} n-grams, {path.stat().st_size / 1e3:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
