"""The guides without a model: what comes out when the picks are a good answer, a bad one, or noise."""

import json
import random

import pytest
import torch

from xinglin import engine, schema
from xinglin.structure import LEAST, SPLIT, Codec, Grammar, Sections, Written, vocabulary

POINTS = (
    ("上腹隐痛两周。\n没有黑便。", "考虑慢性胃炎，需要排除消化性溃疡。"),
    ("饮食不规律可能是原因。", "胆囊疾病多在右上腹痛，应当一并排查。"),
    ("建议到消化内科就诊。", "规律进食；每次2.5片这样的用量请问医生。"),
)
GOOD = schema.Answer.from_points(POINTS).render()


@pytest.fixture(scope="module")
def codec(tokenizer) -> Codec:
    return Codec(tokenizer)


def write(codec: Codec, points, limit: int = 400) -> str:
    """The answer of a model that picks ``points[i]`` while it writes point i (refused ones are passed over), then its end."""
    guide, written = Sections(codec, limit), Written(codec)
    guide.start(written)
    shown, point, picks = "", -1, iter(())
    filler = codec.encode("好")[0]
    while True:
        if guide.point > point:
            point = guide.point
            picks = iter([*points[point], *[codec.end, filler] * 20])
        token = next(picks)
        if not guide.allows(written, token):
            if not written.text.endswith(SPLIT):
                continue
            token = next(other for other in range(codec.size) if guide.allows(written, other))
        finished = guide.take(written, token)
        assert written.text.startswith(shown), "text was taken back that had been shown"
        shown = written.text[: guide.shown(written)]
        if finished:
            assert len(written.ids) <= limit
            return written.text


def spoken(codec: Codec, text: str) -> list[list[int]]:
    """Picks of a model that says ``text`` in each point; where it has more parts (split by "|") each point has its own."""
    parts = text.split("|")
    return [codec.encode(parts[number % len(parts)]) for number in range(6)]


def with_headings(heading: str) -> str:
    """The good answer without its first heading; each point's text ends in the next point's heading as the model writes it."""
    headings = [piece if "、" not in piece else f"\n\n{heading.format(piece[4:8])}" for piece in schema.PIECES[1:]]
    texts = [text for pair in POINTS for text in pair]
    return "|".join(text + heading for text, heading in zip(texts, [*headings, ""], strict=True))


def test_a_good_answer_stays_as_it_is(codec):
    canonical = [text + piece for text, piece in zip([t for pair in POINTS for t in pair], [*schema.PIECES[1:], ""], strict=True)]
    assert write(codec, spoken(codec, "|".join(canonical))) == GOOD


@pytest.mark.parametrize("heading", ["### {}", "**{}**", "【{}】", "{}：", "2、{}", "（二）{}", "第二部分：{}"])
def test_headings_of_any_form_become_the_canonical_ones(codec, heading):
    assert write(codec, spoken(codec, with_headings(heading))) == GOOD


def test_labels_that_are_left_out_are_written(codec):
    answer = write(codec, spoken(codec, f"疼了两周。\n\n{schema.TITLES[2]}\n"))
    assert schema.check(answer) == [] and schema.points_present(answer) == 6


def test_an_earlier_title_is_not_written_again(codec):
    answer = write(
        codec, spoken(codec, f"疼了两周。\n{schema.TITLES[0]}\n**{schema.TITLES[0]}**疼。【{schema.TITLES[2]}】吃坏了。")
    )
    assert schema.check(answer) == [] and schema.titles(answer) == list(schema.TITLES)


def test_an_end_before_any_text_is_refused_and_an_end_in_a_point_opens_the_next(codec):
    picks = [codec.end] * 9 + codec.encode("疼") + [codec.end]
    answer = write(codec, [picks] * 6)
    assert schema.check(answer) == [] and answer.startswith(f"{schema.PIECES[0]}疼。{schema.PIECES[1]}疼。")


def test_a_loop_is_cut_and_every_point_is_reached_within_the_limit(codec):
    answer = write(codec, spoken(codec, "胃炎、" * 200), 120)
    assert schema.check(answer) == [] and answer.count("……") == 6


def test_a_share_ends_at_the_end_of_a_sentence_where_one_is_near(codec):
    answer = write(codec, spoken(codec, "胃炎。" * 200), 200)
    assert schema.check(answer) == [] and "……" not in answer


def test_noise_becomes_a_complete_answer_at_any_limit(codec):
    generator = random.Random(0)
    words = [
        "\n",
        "二",
        "、",
        "###",
        "【",
        "】",
        *schema.TITLES,
        *schema.ALIASES,
        "2.",
        "。",
        "：",
        *schema.POINTS[schema.TITLES[1]],
    ]
    marks = [token for word in words for token in codec.encode(word)]
    least = sum(Sections(codec, 0).costs) + 6 * LEAST
    for number in range(100):
        limit = generator.randint(least, 300)
        picks = [
            [generator.choice([generator.randrange(codec.size), generator.choice(marks)]) for _ in range(300)] for _ in range(6)
        ]
        answer = write(codec, picks, limit)
        assert schema.check(answer) == [] and schema.points_present(answer) == 6, (number, limit, answer)
        assert SPLIT not in answer


def test_bytes_that_form_no_character_are_refused_and_begun_characters_are_ended(codec):
    lead, next_, last = codec.encode("\U00030000")[:3]  # of a character that no vocabulary holds whole
    guide, written = Sections(codec, 300), Written(codec)
    guide.start(written)
    assert not guide.allows(written, next_) and guide.allows(written, lead)
    guide.take(written, lead)
    assert not any(guide.allows(written, token) for token in (lead, codec.end, *codec.encode("好")))
    guide.take(written, next_)
    assert guide.allows(written, last)
    short = Sections(codec, 300)
    short.start(other := Written(codec))
    short.until = len(other.ids) + 4
    assert not short.allows(other, lead), "no room to end it"


def test_control_tokens_and_scores_beyond_the_vocabulary_are_refused(codec):
    guide, written = Sections(codec, 300), Written(codec)
    guide.start(written)
    assert not any(guide.allows(written, token) for token in [*codec.control, codec.size, codec.size + 100])


def test_text_grows_as_the_tokenizer_decodes_it(tokenizer, codec):
    text = "胃疼🙂：2.5mg\n\n𠮷\u3000é" * 3
    ids, written = codec.encode(text), Written(codec)
    for count, token in enumerate(ids, 1):
        written.add([token])
        assert written.text == tokenizer.decode(ids[:count])
    written.low = len(ids)
    written.take_back(5)
    assert written.text == text[:5] and written.low == len(written.ids) and tokenizer.decode(written.ids) == text[:5]


def test_what_is_forced_are_the_tokens_of_training(shared):
    """A model that writes a good answer, token by token as it was trained, is never led off its path."""
    qwen = Codec(engine.load_tokenizer(shared / "data" / "qwen2.5-tokenizer"))
    trained = [*qwen.encode(GOOD), qwen.end]
    guide, written = Sections(qwen, 600), Written(qwen)
    guide.start(written)
    finished = False
    while not finished:
        token = trained[len(written.ids)]
        assert written.ids == trained[: len(written.ids)] and guide.allows(written, token)
        finished = guide.take(written, token)
    assert written.ids == trained and written.text == GOOD


SCHEMA = {
    "type": "object",
    "properties": {"科室": {"enum": ["消化内科", "心内科"]}, "天数": {"type": "integer", "minimum": 1, "maximum": 30}},
    "required": ["科室", "天数"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("real", [False, True])
def test_only_json_of_the_schema_is_let_through(request, tokenizer, real):
    if real:
        tokenizer = engine.load_tokenizer(request.getfixturevalue("shared") / "data" / "qwen2.5-tokenizer")
    codec, size = Codec(tokenizer), len(tokenizer) + 64
    grammar, written = Grammar(vocabulary(tokenizer, size), json.dumps(SCHEMA)), Written(codec)
    torch.manual_seed(0)
    for _ in range(60):
        scores = torch.randn(size)
        while not grammar.allows(written, token := int(scores.argmax())):
            scores[token] = -torch.inf
            grammar.narrow(scores)
        if grammar.take(written, token):
            break
    value = json.loads(written.text)
    assert value["科室"] in ("消化内科", "心内科") and 1 <= value["天数"] <= 30 and set(value) == {"科室", "天数"}


def test_a_schema_that_cannot_be_kept_says_why(tokenizer):
    with pytest.raises(ValueError, match="not"):
        Grammar(vocabulary(tokenizer, len(tokenizer)), '{"not": {"type": "string"}, "type": "object"}')
