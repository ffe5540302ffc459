import hashlib
import json

import pytest
from serve_fakes import BASE, TUNED

from xinglin import schema
from xinglin.serve import answer
from xinglin.serve.protocol import Head


def applied(pieces: list[str]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What a browser shows after the last and after every piece."""
    writer, shown, states = answer.Sections(), dict[str, str](), []
    for patches in [*(writer.feed(piece) for piece in pieces), writer.finish()]:
        for title, kept, text in patches:
            units = shown.get(title, "").encode("utf-16-le")[: 2 * kept]
            shown[title] = units.decode("utf-16-le") + text
        states.append({title: text for title, text in shown.items() if text})
    return states[-1], states


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_patches_of_any_piece_size_end_in_the_parsed_sections(size: int) -> None:
    final, _ = applied([TUNED[start : start + size] for start in range(0, len(TUNED), size)])
    assert final == dict(schema.Answer.parse(TUNED).sections)


def test_a_title_that_is_being_written_is_never_shown_as_text() -> None:
    _, states = applied(list(TUNED))
    for state in states:
        assert not any(title in text for text in state.values() for title in schema.TITLES)


def test_text_without_titles_is_all_shown() -> None:
    assert applied(list(BASE))[0] == {"": BASE}


def test_metadata_identifies_the_text() -> None:
    head = Head("demo", "print")
    found = answer.extension(head, [], TUNED, f"!{TUNED}", [])["aigc"]
    assert set(found) == {
        "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"
    }  # fmt: skip
    assert (found["ProduceID"], found["ReservedCode1"]) == (head.id, hashlib.sha256(f"!{TUNED}".encode()).hexdigest())


def test_cautions_stand_with_the_section_they_concern() -> None:
    points = [("头痛一天。", "考虑紧张性头痛。"), ("劳累。", "偏头痛。"), ("神经内科就诊。", "可口服布洛芬，一次3g，一日3次。")]
    found = answer.cautions(schema.Answer.from_points(points).render(), ["我怀孕八周，头痛怎么办"])
    assert {entry["kind"] for entry in found} == {"dose", "contraindication"}
    assert {entry["section"] for entry in found} == {schema.TITLES[2]}
    assert all(entry["span"] in entry["message"] for entry in found)


def test_every_kind_of_finding_has_its_words() -> None:
    from xinglin.safety import lint

    assert set(answer.CAUTIONS) == set(lint.KINDS)


def test_only_a_and_b_put_their_text_before_the_answer() -> None:
    from xinglin.safety.triage import Alert

    texts = {level: answer.fixed_text([Alert(level, "x", "请就医。")]) for level in "ABC"}
    assert texts == {"A": "请就医。\n\n", "B": "请就医。\n\n", "C": ""}


def test_json_has_its_keys_even_when_the_text_has_no_sections() -> None:
    assert json.loads(answer.as_json(BASE)) == dict.fromkeys(schema.TITLES, "")
