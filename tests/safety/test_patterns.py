"""No text keeps a pattern busy: what users and models write is searched by them, in the server too."""

import functools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from xinglin import choice, schema
from xinglin.safety import contacts, faithfulness, lint, names, pii, prohibitions, spoken, terms, triage

MODULES = (contacts, faithfulness, lint, names, pii, prohibitions, spoken, terms, triage)
FOLDER = Path(triage.__file__).parent
HEADS = ("没有", "可以", "作为", "我是", "从不", "北京市朝阳区", "电话")
UNITS = ("吃", "科的", "和", "或者", "、", "1", "路", "也没", "一次", "早")


def patterns(found: object) -> Iterator[str]:
    if isinstance(found, re.Pattern):
        yield found.pattern
    elif isinstance(found, dict):
        yield from (one for value in found.values() for one in patterns(value))
    elif isinstance(found, list | tuple):
        yield from (one for value in found for one in patterns(value))
    elif is_dataclass(found) and not isinstance(found, type):
        yield from (one for field in fields(found) for one in patterns(getattr(found, field.name)))


def written(found: object) -> Iterator[str]:
    """The strings of a word list that are patterns."""
    if isinstance(found, str):
        yield from [found] if re.search(r"[|*+?\[\\]", found) else []
    elif isinstance(found, dict):
        yield from (one for value in found.values() for one in written(value))
    elif isinstance(found, list):
        yield from (one for value in found for one in written(value))


@functools.cache
def all_patterns() -> list[re.Pattern[str]]:
    found = {one for module in MODULES for one in patterns(list(vars(module).values()))} | set(patterns(triage.load()))
    for path in FOLDER.glob("*.json"):
        found |= set(written(json.loads(path.read_text(encoding="utf-8"))))
    return [compiled for pattern in sorted(found) if (compiled := compile_or_none(pattern))]


def compile_or_none(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # words that are filled in before they are a pattern
        return None


@pytest.mark.parametrize("unit", UNITS)
def test_no_pattern_takes_long_where_a_few_characters_repeat(unit: str) -> None:
    for pattern in all_patterns():
        own = re.findall("[一-鿿]{1,3}", pattern.pattern)
        for head in (*HEADS, *own[:: max(1, len(own) // 4)][:4]):
            started = time.process_time()
            pattern.search(head + unit * 24 + "吃")
            assert time.process_time() - started < 0.25, (head, unit, pattern.pattern[:80])


@pytest.mark.parametrize("text", [" " * 3000 + "吃", "不" + " " * 3000 + "吃", "1." * 1500, "不" + "能" * 1500 + "吃"])
def test_a_model_that_repeats_itself_is_read_quickly(text: str) -> None:
    started = time.process_time()
    schema.check(text)
    choice.extract_choice(text, "ABCD")
    assert time.process_time() - started < 0.5


def test_long_texts_of_few_words_are_read_quickly() -> None:
    for text in (
        "没有" + "恶心和" * 200,
        "从不" + "或者" * 300,
        "我是" + "科的" * 300,
        "可以" + "吃" * 600,
        "1" * 5000 + "每公斤",
        "一二十百" * 1000,
    ):
        started = time.process_time()
        triage.triage([text])
        lint.check("头痛", text)
        faithfulness.check("头痛", "不要停药。", text)
        pii.mask(text)
        assert time.process_time() - started < 3.0, text[:8]
