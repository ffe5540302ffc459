"""Many answers at once: the same ones as alone, whoever joins, leaves or fails beside them."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig, get_peft_model

from xinglin import batching, schema
from xinglin.batching import Batcher
from xinglin.engine import Engine
from xinglin.generation import Stream

QUESTIONS = [schema.messages("胃疼" * (1 + number % 5) + f"，{number}天了怎么办？") for number in range(12)]


@pytest.fixture(scope="module")
def loaded(tiny) -> Engine:
    """A random base with a random adapter."""
    engine = Engine.load(str(tiny))
    torch.manual_seed(2)
    tuned = get_peft_model(engine.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    return Engine(tuned, engine.tokenizer, "tiny", tiny)


def run(stream: Stream) -> str:
    return "".join(stream)


def together(engine: Engine, **settings: object) -> list[str]:
    """All questions at once, joining one after the other while the first are being written."""

    def ask(number: int) -> str:
        time.sleep(0.01 * number)
        return run(engine.stream(QUESTIONS[number], max_new_tokens=20 + number, **settings))

    with ThreadPoolExecutor(len(QUESTIONS)) as threads:
        return list(threads.map(ask, range(len(QUESTIONS))))


@pytest.mark.parametrize("tuned", [False, True])
def test_answers_written_together_are_those_written_alone(loaded, tuned):
    alone = [
        loaded.complete([prompt], tuned=tuned, max_new_tokens=20 + number)[0].text for number, prompt in enumerate(QUESTIONS)
    ]
    assert together(loaded, tuned=tuned) == alone


def test_sides_take_turns_and_keep_apart(loaded):
    streams = [loaded.stream(prompt, tuned=number % 2 == 0, max_new_tokens=30) for number, prompt in enumerate(QUESTIONS)]
    alone = [loaded.complete([p], tuned=number % 2 == 0, max_new_tokens=30)[0].text for number, p in enumerate(QUESTIONS)]
    assert [run(stream) for stream in streams] == alone
    assert alone[0] != loaded.complete([QUESTIONS[0]], tuned=False, max_new_tokens=30)[0].text


@pytest.mark.parametrize(
    "settings", [{"sections": True}, {"temperature": 1.0, "seed": 3}, {"temperature": 0.8, "top_p": 0.5, "seed": 3}]
)
def test_structure_and_samples_do_not_depend_on_the_neighbours(loaded, settings):
    alone = [run(loaded.stream(prompt, max_new_tokens=20 + number, **settings)) for number, prompt in enumerate(QUESTIONS)]
    assert together(loaded, **settings) == alone


def test_a_random_model_always_answers_completely(loaded):
    streams = [
        loaded.stream(prompt, sections=True, max_new_tokens=120 + 20 * number, temperature=temperature, seed=number)
        for number, prompt in enumerate(QUESTIONS)
        for temperature in (0.0, 1.5)
    ]
    for stream in streams:
        assert schema.check(run(stream)) == []
        assert stream.reply.finish_reason == "stop"


def test_a_limit_too_short_for_the_sections_is_kept_and_said(loaded):
    stream = loaded.stream(QUESTIONS[0], sections=True, max_new_tokens=30)
    assert run(stream).startswith(schema.PIECES[0])
    assert (stream.reply.finish_reason, stream.reply.completion_tokens) == ("length", 30)


def test_json_of_a_schema_from_a_random_model(loaded):
    wanted = {"type": "object", "properties": {"答": {"type": "boolean"}}, "required": ["答"], "additionalProperties": False}
    streams = [
        loaded.stream(QUESTIONS[number], json_schema=json.dumps(wanted), temperature=1.0, seed=number) for number in range(4)
    ]
    assert all(isinstance(json.loads(run(stream))["答"], bool) for stream in streams)


def test_one_that_leaves_frees_its_row_and_the_others_go_on(loaded):
    streams = [loaded.stream(prompt, tuned=False, max_new_tokens=100) for prompt in QUESTIONS[:4]]
    next(streams[1])
    streams[1].close()
    left = time.monotonic()
    rest = run(streams[1])
    assert time.monotonic() - left < 1 and streams[1].reply.finish_reason == "cancelled"
    assert len(rest) < 300
    alone = [loaded.complete([prompt], tuned=False, max_new_tokens=100)[0].text for prompt in QUESTIONS[:4]]
    assert [run(streams[number]) for number in (0, 2, 3)] == [alone[number] for number in (0, 2, 3)]


def test_memory_is_bounded_and_those_without_room_wait(loaded, monkeypatch):
    monkeypatch.setattr(batching, "CELLS", 2000)
    small = Engine(loaded.model, loaded.tokenizer, "tiny", loaded.adapter)
    most, cells = 0, 0
    forward = batching.Lane._forward

    def watched(lane, rows, columns):
        nonlocal most, cells
        most, cells = max(most, len(lane.jobs)), max(cells, lane.cache.shape[0] * lane.cache.shape[1])
        forward(lane, rows, columns)

    monkeypatch.setattr(batching.Lane, "_forward", watched)
    streams = [small.stream(prompt, tuned=False, max_new_tokens=60) for prompt in [*QUESTIONS, schema.messages("头晕" * 300)]]
    assert [stream.reply.finish_reason for stream in streams if run(stream)] == ["length"] * 13
    assert 1 < most < 12 and cells <= 2000


def test_a_failure_reaches_all_that_are_written_and_the_next_one_works(loaded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batching.Lane, "step", lambda lane: 1 / 0)
        stream = loaded.stream(QUESTIONS[0])
        with pytest.raises(ZeroDivisionError):
            run(stream)
    assert run(loaded.stream(QUESTIONS[0], max_new_tokens=5))


def test_scores_that_are_no_numbers_end_one_answer_and_leave_no_trace(loaded, monkeypatch):
    alone = [loaded.complete([prompt], tuned=False, max_new_tokens=30)[0].text for prompt in QUESTIONS[:3]]
    head = loaded.causal.lm_head.forward

    def broken(hidden):
        """The second of three rows overflows once."""
        scores = head(hidden)
        if len(scores) == 3 and not monkeypatched:
            monkeypatched.append(1)
            scores[1] = torch.nan
            for pair in loaded._batcher.lanes[False].cache.layers:
                pair[0][1], pair[1][1] = torch.nan, torch.nan
        return scores

    monkeypatched: list[int] = []
    monkeypatch.setattr(loaded.causal.lm_head, "forward", broken)
    streams = [loaded.stream(prompt, tuned=False, max_new_tokens=30) for prompt in QUESTIONS[:3]]
    with pytest.raises(RuntimeError, match="not numbers"):
        run(streams[1])
    assert [run(streams[0]), run(streams[2])] == [alone[0], alone[2]]
    assert together(loaded, tuned=False)[:2] == [
        loaded.complete([QUESTIONS[n]], tuned=False, max_new_tokens=20 + n)[0].text for n in (0, 1)
    ]


def test_a_guide_that_allows_nothing_ends_one_answer(loaded, monkeypatch):
    monkeypatch.setattr("xinglin.structure.Grammar.allows", lambda guide, written, token: False)
    stuck = loaded.stream(QUESTIONS[0], json_schema='{"type": "boolean"}')
    other = loaded.stream(QUESTIONS[0], max_new_tokens=10)
    with pytest.raises(RuntimeError, match="no token is allowed"):
        run(stuck)
    assert run(other) == loaded.complete([QUESTIONS[0]], max_new_tokens=10)[0].text


def test_a_temperature_next_to_nothing_is_greedy(loaded):
    greedy = run(loaded.stream(QUESTIONS[0], max_new_tokens=10))
    assert run(loaded.stream(QUESTIONS[0], max_new_tokens=10, temperature=1e-40)) == greedy


def test_the_thread_ends_when_there_is_nothing_to_write(loaded):
    run(loaded.stream(QUESTIONS[0], max_new_tokens=5))
    end = time.monotonic() + 5
    while any(thread.name == "generate" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert isinstance(loaded._batcher, Batcher)
