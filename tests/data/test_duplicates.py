"""MinHash only proposes; similarity is exact, whatever the corpus looks like."""

import random
from itertools import combinations

import numpy as np
import pytest

from xinglin.data import duplicates
from xinglin.data.duplicates import components, gram_hashes, jaccard


def corpus(seed: int) -> list[str]:
    """400 texts: 100 originals, and copies with more and more characters changed."""
    draw = random.Random(seed)
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]
    texts = []
    for _ in range(100):
        original = [draw.choice(letters) for _ in range(draw.randint(60, 250))]
        for changes in (0, 1, 3, 9):
            copy = list(original)
            for _ in range(changes):
                copy[draw.randrange(len(copy))] = draw.choice(letters)
            texts.append("".join(copy))
    return texts


def test_joins_what_brute_force_joins() -> None:
    texts = corpus(1)
    sets = [duplicates.grams(text) for text in texts]
    true = [
        (one, other) for one, other in combinations(range(len(texts)), 2) if duplicates.overlap(sets[one], sets[other]) >= 0.8
    ]
    joined = components(texts, 0.8)
    found = sum(joined.root(first) == joined.root(second) for first, second in true)
    assert 100 < len(true) < 300
    assert found >= 0.98 * len(true)
    exact = duplicates.Components(len(texts))
    for first, second in true:
        exact.join(first, second)
    assert all(exact.root(number) == exact.root(root) for number, root in enumerate(joined.roots().tolist()))


def test_a_chain_is_one_component_named_after_its_first_text() -> None:
    letters = [chr(0x4E00 + number) for number in range(120)]
    chain = ["".join(letters[start : start + 100]) for start in (0, 6, 12, 18)]
    assert jaccard(chain[0], chain[3]) < 0.8 < jaccard(chain[0], chain[1])
    assert components(["另外一句完全不同的话", *chain], 0.8).roots().tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [("胃疼", "胃疼", 1.0), ("胃疼", "头疼", 0.0), ("abcdef", "abcdeg", 1 / 3), ("", "", 1.0)]
)
def test_similarity_is_that_of_five_gram_sets(first: str, second: str, expected: float) -> None:
    assert jaccard(first, second) == pytest.approx(expected)


def test_hashes_are_those_of_each_text_alone() -> None:
    texts = ["胃疼三天饭后加重", "头晕", "", "𠮷野家的牛肉饭好吃吗"]
    together, starts = gram_hashes(texts)
    for number, text in enumerate(texts):
        alone, _ = gram_hashes([text])
        assert together[starts[number] : starts[number + 1]].tolist() == alone.tolist()
        assert len(alone) == max(len(text) - 4, 1)


def test_a_long_run_of_one_hash_is_compared_throughout() -> None:
    numbers = np.arange(300)
    pairs = {tuple(pair) for found in duplicates.candidates(np.zeros(300, np.uint64), numbers) for pair in found.tolist()}
    assert {(0, number) for number in range(1, 300)} <= pairs
    assert {(number, number + 1) for number in range(299)} <= pairs
    assert all(first < second for first, second in pairs)


def test_a_template_with_a_thousand_fillings_is_not_one_cluster() -> None:
    draw, head = random.Random(5), "您好，根据您描述的情况，建议到正规医院就诊，"
    texts = [head + "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(60)) for _ in range(1000)]
    assert len(set(components(texts, 0.8).roots().tolist())) == 1000
