"""Red flags: what raises them, what silences them, and what must never lower them."""

import pytest

from xinglin.safety.triage import triage


def level(*texts: str) -> str | None:
    alert = triage(texts)
    return alert.level if alert else None


@pytest.mark.parametrize(
    "text",
    [
        "我爸胸口压着疼半个多小时了，一身冷汗",
        "我妈早上起来嘴歪了说话也不清楚右边手没劲",
        "孩子把纽扣电池吞下去了",
        "我不想活了，安眠药已经买好了",
    ],
)
def test_emergencies_call_for_120(text: str) -> None:
    assert level(text) == "A"


@pytest.mark.parametrize("text", ["没有胸痛，没有出汗，就是有点累", "心梗有哪些症状？", "今天加班累死了", "高血压吃什么药"])
def test_ordinary_questions_raise_nothing(text: str) -> None:
    assert level(text) is None


def test_self_harm_names_the_help_line_and_120() -> None:
    alert = triage(["我不想活了"])
    assert alert is not None
    assert "12356" in alert.message and "120" in alert.message
