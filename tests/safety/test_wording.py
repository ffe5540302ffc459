"""Words of advice by their meaning."""

from xinglin.safety import wording


def test_words_that_carry_the_meaning() -> None:
    assert wording.words("以后千万别再喝酒") == ("别", "再", "喝酒")


def test_the_same_meaning_and_the_same_drug_count_whole_unlisted_words_by_their_characters() -> None:
    said = wording.marks("避免饮酒、受风和对乙酰氨基酚，忌红心火龙果").says
    assert wording.share(("喝酒", "吹风", "扑热息痛"), said) == 1
    assert wording.share(("红心火龙果",), said) == 1
    assert 0 < wording.share(("火把",), said) < wording.share(("火龙",), said)
    assert wording.share(("芒果",), said) == 0.25


def test_advice_to_do_the_opposite_is_known() -> None:
    assert wording.marks("饮食清淡").opposes >= {"<辣>", "<油>"}
    assert not wording.marks("饮食辛辣").opposes
