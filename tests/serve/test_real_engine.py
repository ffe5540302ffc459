"""The server on the built-in model: what a fake cannot show."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import httpx
import openai
import pydantic
import pytest
from serve_fakes import running, serving

from xinglin import schema
from xinglin.config import DEMO
from xinglin.engine import Engine, encode
from xinglin.serve.backend import Local

QUESTION = "胃疼两周了怎么办？"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(str(DEMO / "base"))


@pytest.fixture(scope="module")
def url(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("runs")
    with running(serving(folder, backend=Local(engine, "demo"))) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, question: str, **more: object) -> openai.types.chat.ChatCompletion:
    more = {"max_tokens": 30, "extra_body": {"xinglin": {"structure": "free"}}} | more
    return client.chat.completions.create(model="base", messages=[{"role": "user", "content": question}], **more)


def test_counts_are_those_of_the_tokenizer(client: openai.OpenAI, engine: Engine) -> None:
    answer = ask(client, QUESTION)
    assert answer.usage.prompt_tokens == len(encode(engine.tokenizer, schema.messages(QUESTION)))
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 30


def test_stream_and_whole_answer_say_the_same(client: openai.OpenAI) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(client, QUESTION, stream=True)]
    assert "".join(pieces) == ask(client, QUESTION).choices[0].message.content != ""


def test_a_stop_text_ends_the_answer(client: openai.OpenAI) -> None:
    whole = ask(client, QUESTION).choices[0].message.content
    cut = ask(client, QUESTION, stop=[whole[5:7]]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole.partition(whole[5:7])[0], "stop")


def test_a_prompt_beyond_the_context_is_400_with_both_numbers(client: openai.OpenAI, engine: Engine) -> None:
    with pytest.raises(openai.BadRequestError, match=str(engine.context)) as caught:
        ask(client, "长" * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_answers_asked_for_at_once_are_those_asked_for_alone(client: openai.OpenAI) -> None:
    questions = [f"{QUESTION}（{number}）" for number in range(4)]
    alone = [ask(client, question).choices[0].message.content for question in questions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda question: ask(client, question).choices[0].message.content, questions))
    assert together == alone


def test_a_client_that_leaves_stops_the_generation(url: str, client: openai.OpenAI) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": QUESTION}], "xinglin": {"structure": "free"}}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=body | {"temperature": 2.0, "seed": 1}, timeout=0.1)
    assert ask(client, QUESTION).usage.completion_tokens == 30
    metrics = httpx.get(f"{url}/metrics").text
    assert "xinglin_aborted_total 1" in metrics and "xinglin_running 0" in metrics


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "seed": 4}, {"stream": True}, {"max_tokens": 110}])
def test_the_base_that_was_never_tuned_answers_in_three_complete_sections(
    client: openai.OpenAI, settings: dict[str, object]
) -> None:
    answer = ask(client, QUESTION, **{"extra_body": {}, "max_tokens": 160} | settings)
    if "stream" in settings:
        chunks = list(answer)
        text, finish = "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert answer.xinglin["complete"]
    assert (schema.check(text), finish) == ([], "stop")


def test_sections_as_json_are_complete(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTION, response_format={"type": "json_object"}, max_tokens=160).choices[0].message
    assert all(schema.has_content(text) for text in json.loads(answer.content).values())


class Advice(pydantic.BaseModel, extra="forbid"):
    urgent: bool
    department: Literal["消化内科", "急诊科"]
    days: int = pydantic.Field(ge=1, le=14)


@pytest.mark.parametrize("seed", range(3))
def test_a_schema_is_kept_by_a_model_that_never_saw_json(client: openai.OpenAI, seed: int) -> None:
    prompt = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.parse(
        model="base", messages=prompt, response_format=Advice, max_tokens=60, temperature=1.0, seed=seed
    )
    assert isinstance(answer.choices[0].message.parsed, Advice) and answer.choices[0].finish_reason == "stop"
    form = {"type": "json_schema", "json_schema": {"name": "Advice", "schema": Advice.model_json_schema()}}
    chunks = ask(client, QUESTION, response_format=form, max_tokens=60, temperature=1.0, seed=seed, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert Advice.model_validate_json(text) == answer.choices[0].message.parsed


def test_a_schema_that_cannot_be_kept_is_refused(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "not": {"type": "string"}}}}
    with pytest.raises(openai.BadRequestError, match="response_format") as caught:
        ask(client, QUESTION, response_format=form)
    assert caught.value.code == "unsupported_schema"
