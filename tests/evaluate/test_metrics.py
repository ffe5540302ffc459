"""Numbers of one answer."""

import pytest

from xinglin.evaluate import agreement, metrics
from xinglin.schema import Answer

GOOD = Answer.from_points(
    [("头痛两天。", "考虑紧张性头痛。"), ("睡眠不足。", "需与偏头痛鉴别。"), ("神经内科就诊。", "规律作息。")]
).render()


def test_complete_asks_for_its_own_end():
    assert metrics.measure(GOOD, "stop")["complete"] == 1.0
    assert metrics.measure(GOOD, "length")["complete"] == 0.0
    assert metrics.measure(GOOD[:-3], "stop")["complete"] == 0.0
    assert metrics.measure(GOOD, "stop")["points"] == 6.0


def test_repetition_sees_a_loop():
    assert metrics.repetition("建议多喝水注意休息。" * 20) > 0.9
    assert metrics.repetition("") == 0.0
    assert metrics.repetition("头痛两天，考虑紧张性头痛，注意休息。") == 0.0


def test_overlap_is_of_words_and_one_for_the_same():
    same = metrics.against(GOOD, GOOD)
    assert all(value == pytest.approx(1.0) for value in same.values())
    other = metrics.against("完全无关的内容", GOOD)
    assert all(value < 0.1 for value in other.values())


def test_bleu_and_rouge_count_jieba_words():
    found = metrics.against("建议口服布洛芬缓解头痛", "建议口服布洛芬缓解头痛，注意休息")
    words = len(metrics.tokens("建议口服布洛芬缓解头痛")), len(metrics.tokens("建议口服布洛芬缓解头痛，注意休息"))
    assert found["rouge1"] == pytest.approx(2 * words[0] / sum(words))


def test_empty_answer_scores_nothing():
    assert metrics.against("", GOOD)["bleu4"] == 0.0
    assert metrics.measure("", "stop") | {"stopped": 0.0} == dict.fromkeys(metrics.measure("", "stop"), 0.0)


def test_samples_that_name_other_drugs_disagree():
    found = agreement.scores(["可口服布洛芬。", "可口服布洛芬。", "可口服阿莫西林，请立即去急诊。"])
    assert found["same_drugs"] == pytest.approx(1 / 3)
    assert found["same_urgency"] == pytest.approx(1 / 3)
    assert agreement.scores(["甲乙丙", "甲乙丙"]) == {"agreement": 1.0, "same_drugs": 1.0, "same_urgency": 1.0}
