"""Fit the linear model over character n-grams that reads together with the triage rules.

In: all sets below ``tests/safety/sets`` (``triage.FOLDERS`` and ``training.jsonl``) and, as ordinary questions of low weight, the
questions of two public corpora where the folder ``shared`` lies beside the repository. Out: ``xinglin/safety/ngrams.json``::

    {"bias": -1.2, "bars": [5.0, -1.0, -2.0, -4.0], "weights": {"胸口": 0.41, ...}}

Run: ``python bench/triage_fit.py``. ``--by author`` or ``--by group`` prints, instead of writing, what comes out when each
author, or each group and kind of questions, is left out of the fit in turn and counted: figures of texts the model has not seen.
"""

import csv
import io
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from triage import FOLDERS, SETS, lines, read, turns_of

from xinglin.safety import triage

ROOT = Path(__file__).resolve().parent.parent
CORPUS_WEIGHT = 0.05  # of one public question; a few of them are emergencies, and none were labelled
CORPUS_ROWS = 3000
REGULARISATION = 60.0
ROUNDS = 2
SMALLEST = 0.05  # weights nearer to zero are not shipped
BARS = (5.0, -1.0, -2.0, -4.0)  # with 0, 1, 2, 3 lists of the rules; by the cross-validation over authors
SHIFTS = (2.0, 1.0, 0.0, -1.0, -2.0)  # of all, shown by the cross-validation
PARTS = 10  # groups and kinds left out together with --by group


@dataclass(frozen=True)
class Row:
    """One labelled question: whose hand (``author``), group or ``kind``, how many lists count, whether a ``sure`` one does."""

    letters: str
    emergency: bool
    set: str
    author: str
    kind: str
    lists: int
    sure: bool


def labelled() -> list[Row]:
    rows = []
    for folder in FOLDERS:
        for name in ("emergency", "negative", "ordinary"):
            for row in read(folder, name):
                rows.append(_row(turns_of(row), name == "emergency", name, folder.name, row.get("group") or row["kind"]))
    for row in lines(SETS / "training.jsonl"):
        rows.append(_row((row["text"],), row["label"] == "emergency", "training", "training", "training"))
    return rows


def _row(turns: Sequence[str], emergency: bool, name: str, author: str, kind: str) -> Row:
    text = triage.normalise("\n".join(turns))
    return Row(
        triage.letters(text)[0],
        emergency,
        name,
        author,
        kind,
        sum(1 for _ in triage.counting(text, "AB")),
        triage.sure(text) is not None,
    )


def corpus(limit: int = CORPUS_ROWS) -> list[str]:
    """The letters of questions of the two corpora, without those that a sure rule takes for emergencies."""
    texts = corpus_questions()
    random.Random(0).shuffle(texts)
    normal = [triage.normalise(text) for text in texts[: limit + limit // 20]]
    return [triage.letters(text)[0] for text in normal if not triage.sure(text)][:limit]


def corpus_questions() -> list[str]:
    folder = ROOT.parent / "shared" / "data"
    rows = json.loads((folder / "zhongjing" / "huatuo26M_test.json").read_text(encoding="utf-8"))
    texts = ["".join(row["instruction"]) for row in rows]
    for path in sorted((folder / "toyhom").glob("*.csv")):
        table = csv.DictReader(io.StringIO(path.read_bytes().decode("gb18030", errors="replace")))
        texts += [f"{row['title']}。{row['ask']}" for row in table]
    return sorted(set(texts))


# ---------------------------------------------------------------- the fit


def matrix(texts: Sequence[str], index: dict[str, int]) -> csr_matrix:
    """One row per text: counts of its n-grams divided as ``triage.stretches`` divides them."""
    values: list[float] = []
    columns: list[int] = []
    starts = [0]
    for text in texts:
        scale = 1 / math.sqrt(3 * max(len(text), triage.FULL))
        for gram in triage.ngrams(text):
            if gram in index:
                columns.append(index[gram])
                values.append(scale)
        starts.append(len(columns))
    return csr_matrix((values, columns, starts), shape=(len(texts), len(index)))


def logistic(features: csr_matrix, labels: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weights and, last, the bias of an L2-regularised logistic regression."""
    signs = np.where(labels > 0, 1.0, -1.0)
    turned = features.T.tocsr()

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        margin = signs * (features @ point[:-1] + point[-1])
        slope = -weights * signs / (1 + np.exp(margin))
        value = (weights * np.logaddexp(0, -margin)).sum() + point[:-1] @ point[:-1] / (2 * REGULARISATION)
        return value, np.append(turned @ slope + point[:-1] / REGULARISATION, slope.sum())

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 80}).x


def fit(rows: Sequence[Row], background: Sequence[str]) -> triage.Classifier:
    """Fit on whole texts, then on them and the stretch the last model found most alarming in each of them."""
    texts = [row.letters for row in rows] + list(background)
    labels = np.array([row.emergency for row in rows] + [False] * len(background))
    weights = np.array([1.0] * len(rows) + [CORPUS_WEIGHT] * len(background))
    known = {gram for row in rows for gram in triage.ngrams(row.letters)}
    seen = Counter(gram for text in texts for gram in set(triage.ngrams(text)))
    index = {gram: place for place, gram in enumerate(sorted(gram for gram in known if seen[gram] > 1))}
    features = [matrix(texts, index)]
    point = logistic(features[0], labels, weights, np.zeros(len(index) + 1))
    for done in range(ROUNDS):
        model = classifier(point, index)
        features.append(matrix([triage.best_stretch(text, model) for text in texts], index))
        copies = done + 2
        point = logistic(stacked(features), np.tile(labels, copies), np.tile(weights, copies), point)
    return classifier(point, index)


def stacked(features: Sequence[csr_matrix]) -> csr_matrix:
    from scipy.sparse import vstack

    return vstack(features, format="csr")


def classifier(point: np.ndarray, index: dict[str, int]) -> triage.Classifier:
    kept = {gram: round(float(point[place]), 2) for gram, place in index.items() if abs(point[place]) >= SMALLEST}
    return triage.Classifier(round(float(point[-1]), 3), BARS, kept)


# ---------------------------------------------------------------- cross-validation


def left_out(rows: Sequence[Row], by: str) -> list[frozenset[str]]:
    """The authors, or the groups and kinds, that are counted and not fitted on, turn by turn."""
    if by == "author":
        return [frozenset([folder.name]) for folder in FOLDERS]
    kinds = sorted({row.kind for row in rows} - {"training"})
    random.Random(1).shuffle(kinds)
    return [frozenset(kinds[part::PARTS]) for part in range(PARTS)]


def cross_validate(rows: Sequence[Row], background: Sequence[str], by: str) -> list[tuple[Row, float]]:
    """Every row with the score a model gives it that has not seen its author, or its group."""
    scores = []
    for names in left_out(rows, by):
        counted = [row for row in rows if names & {row.author, row.kind}]
        model = fit([row for row in rows if not names & {row.author, row.kind}], background)
        low = replace(model, bars=(BARS[-1] - max(SHIFTS),))
        scores += [(row, triage.weight(row.letters, low)) for row in counted]
        print(f"{len(scores)} of {len(rows)}, {len(model.weights)} n-grams", file=sys.stderr, flush=True)
    return scores


def table(scores: Sequence[tuple[Row, float]]) -> None:
    """Shares of alarms per author and set, around the thresholds in use."""
    for author in sorted({row.author for row, _ in scores} - {"training"}):
        for shift in SHIFTS:
            line = []
            for name in ("emergency", "negative", "ordinary"):
                chosen = [is_alarm(row, value - shift) for row, value in scores if (row.author, row.set) == (author, name)]
                line.append(f"{name} {sum(chosen)}/{len(chosen)} {sum(chosen) / len(chosen):.3f}")
            print(f"{author:8} bars {shift:+4.1f}  " + "  ".join(line))


def is_alarm(row: Row, value: float) -> bool:
    return row.sure or value > BARS[min(row.lists, len(BARS) - 1)]


def main() -> None:
    rows, background = labelled(), corpus()
    if "--by" in sys.argv:
        table(cross_validate(rows, background, sys.argv[sys.argv.index("--by") + 1]))
        return
    model = fit(rows, background)
    path = ROOT / "xinglin" / "safety" / "ngrams.json"
    data = {"bias": model.bias, "bars": model.bars, "weights": model.weights}
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(model.weights)} n-grams, {path.stat().st_size / 1e3:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
