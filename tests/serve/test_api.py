"""The API as clients meet it: the 25 checks of an OpenAI-compatible server, most of them through the official client."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pydantic
import pytest
from serve_fakes import BASE, TUNED, FakeEngine, running, serving

from xinglin import schema

CHEST = "我爸胸口压着疼半个多小时了，一身冷汗，应该没事吧"
QUESTION = [{"role": "user", "content": "胃疼两周了怎么办？"}]


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, engine: FakeEngine) -> Iterator[str]:
    with running(serving(tmp_path_factory.mktemp("runs"), engine)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0) as made:
        yield made


def post(url: str, **fields: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={"model": "demo", "messages": QUESTION} | fields)


def error_of(response: httpx.Response) -> dict[str, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def wait_until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


# ---------------------------------------------------------------- models (1, 2, 15)


def test_models_are_listed_whatever_key_is_sent(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [(model.id, model.object, model.owned_by) for model in models] == [
        ("demo", "model", "xinglin"),
        ("Qwen2.5-fake", "model", "xinglin"),
    ]


def test_one_model_is_found_by_name(client: openai.OpenAI) -> None:
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_a_model_name_may_hold_a_slash(tmp_path: Path) -> None:
    engine = FakeEngine(name="Qwen/Qwen2.5-7B-Instruct")
    with running(serving(tmp_path, engine)) as url:
        assert httpx.get(f"{url}/v1/models/Qwen/Qwen2.5-7B-Instruct").json()["id"] == "Qwen/Qwen2.5-7B-Instruct"


def test_unknown_model_in_a_chat_names_the_known_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"demo, Qwen2\.5-fake") as caught:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


# ---------------------------------------------------------------- whole answers (3, 4, 10, 11, 12, 19, 20)


def test_whole_answer_has_the_shape_and_counts_of_the_protocol(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "demo", "fake-prompt")
    assert abs(answer.created - time.time()) < 60
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TUNED, "stop")
    prompt = sum(len(turn["content"]) for turn in schema.messages(QUESTION[0]["content"]))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, len(TUNED))
    assert answer.usage.total_tokens == prompt + len(TUNED)


def test_extension_carries_sections_label_and_metadata(client: openai.OpenAI) -> None:
    extension = client.chat.completions.create(model="demo", messages=QUESTION).xinglin
    assert tuple(extension["sections"]) == schema.TITLES
    assert (extension["complete"], extension["alerts"], extension["label"]) == (True, [], schema.AI_LABEL)
    assert extension["disclaimer"] == schema.DISCLAIMER
    assert extension["aigc"]["Label"] == "1" and extension["aigc"]["ProduceID"].startswith("chatcmpl-")


def test_base_is_the_model_without_the_adapter(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.create(model="Qwen2.5-fake", messages=QUESTION)
    assert answer.choices[0].message.content == BASE
    assert engine.asked[-1]["tuned"] is False
    assert answer.xinglin["complete"] is False and answer.xinglin["preamble"] == BASE


def test_the_prompt_is_the_schemas_unless_the_client_brings_a_system_text(client: openai.OpenAI, engine: FakeEngine) -> None:
    client.chat.completions.create(model="demo", messages=QUESTION)
    assert engine.asked[-1]["messages"] == schema.messages(QUESTION[0]["content"])
    client.chat.completions.create(model="demo", messages=[{"role": "developer", "content": "只说一句"}, *QUESTION])
    assert engine.asked[-1]["messages"] == [{"role": "system", "content": "只说一句"}, *QUESTION]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_cut_at_the_limit_says_length(client: openai.OpenAI, name: str) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION, **{name: 5})
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_max_completion_tokens_wins_over_max_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=50, max_completion_tokens=7)
    assert answer.usage.completion_tokens == 7


def test_stop_text_is_not_part_of_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION, stop="二、")
    assert answer.choices[0].message.content == TUNED.partition("二、")[0]
    assert answer.choices[0].finish_reason == "stop"


def test_sampling_settings_reach_the_engine_and_greedy_is_the_default(client: openai.OpenAI, engine: FakeEngine) -> None:
    client.chat.completions.create(model="demo", messages=QUESTION)
    assert (engine.asked[-1]["temperature"], engine.asked[-1]["seed"]) == (0.0, None)
    client.chat.completions.create(model="demo", messages=QUESTION, temperature=0.5, top_p=0.9, seed=7)
    asked = engine.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.5, 0.9, 7)


def test_parts_roles_and_neighbours_of_one_role_are_read(client: openai.OpenAI, engine: FakeEngine) -> None:
    turns = [
        {"role": "system", "content": "规则一"},
        {"role": "user", "content": [{"type": "text", "text": "我胃疼"}, {"type": "text", "text": "两周了"}]},
        {"role": "assistant", "content": "饭后吗？"},
        {"role": "user", "content": "是的"},
        {"role": "tool", "content": "化验正常", "tool_call_id": "1"},
    ]
    client.chat.completions.create(model="demo", messages=turns)
    assert engine.asked[-1]["messages"] == [
        {"role": "system", "content": "规则一"},
        {"role": "user", "content": "我胃疼\n两周了"},
        {"role": "assistant", "content": "饭后吗？"},
        {"role": "user", "content": "是的\n\n化验正常"},
    ]


def test_an_image_is_refused_by_name(url: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    response = post(url, messages=[{"role": "user", "content": parts}])
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_content")
    assert "image_url" in error_of(response)["message"]


def test_fields_nobody_knows_are_ignored(client: openai.OpenAI) -> None:
    extra = {"top_k": 20, "repetition_penalty": 1.05, "chat_id": "x"}
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, user="u", metadata={"a": "b"}, store=False, extra_body=extra
    )
    assert answer.choices[0].message.content == TUNED


# ---------------------------------------------------------------- streams (5, 6, 7, 8, 9, 13)


def test_stream_joins_to_the_whole_answer_and_ends_with_the_reason(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo", messages=QUESTION, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TUNED
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].choices[0].delta.content is None
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1


def test_usage_comes_in_one_last_chunk_when_asked_for(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="demo", messages=QUESTION, stream=True, stream_options=options))
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len(TUNED)


def test_stream_on_the_wire(url: str) -> None:
    response = post(url, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-encoding" not in response.headers
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert "usage" not in json.loads(events[0][6:])
    assert "胃" in response.text and "\\u" not in response.text


def test_line_separators_inside_an_answer_do_not_break_the_stream(tmp_path: Path) -> None:
    text = "一\u2028二\x85三\r\n四"
    with running(serving(tmp_path, FakeEngine(answer=lambda messages, tuned: text))) as url:
        lines = post(url, stream=True).text.splitlines()
        values = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(value["choices"][0]["delta"].get("content", "") for value in values) == text


def test_stop_text_never_shows_in_a_stream(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="demo", messages=QUESTION, stream=True, stop=["原因分析\n", "三、"])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TUNED.partition("原因分析\n")[0]


def test_patches_build_the_sections_up(url: str) -> None:
    values = [
        json.loads(line[6:])
        for line in post(url, stream=True, xinglin={"sections": True}).text.splitlines()
        if line[:7] == "data: {"
    ]
    sections: dict[str, str] = {}
    for value in values:
        for title, kept, text in value.get("xinglin", {}).get("patches", []):
            units = sections.get(title, "").encode("utf-16-le")[: 2 * kept]
            sections[title] = units.decode("utf-16-le") + text
    assert sections == dict(schema.Answer.parse(TUNED).sections)


def chunks_of(response: httpx.Response) -> list[dict]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_the_first_chunk_has_label_and_metadata_so_that_a_stopped_answer_has_them(url: str) -> None:
    first = chunks_of(post(url, stream=True))[0]
    assert (first["xinglin"]["label"], first["xinglin"]["alerts"]) == (schema.AI_LABEL, [])
    metadata = first["xinglin"]["aigc"]
    assert (metadata["Label"], metadata["ProduceID"], metadata["ReservedCode1"]) == ("1", first["id"], "")


@pytest.mark.parametrize("form", [{}, {"response_format": {"type": "json_object"}}])
def test_the_digest_is_that_of_the_content(url: str, form: dict[str, object]) -> None:
    chest = [{"role": "user", "content": CHEST}]
    whole = post(url, messages=chest, **form).json()
    chunks = chunks_of(post(url, messages=chest, stream=True, **form))
    streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert streamed == whole["choices"][0]["message"]["content"]
    for extension in (whole["xinglin"], chunks[-1]["xinglin"]):
        assert extension["aigc"]["ReservedCode1"] == hashlib.sha256(streamed.encode()).hexdigest()


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_are_masked_before_the_model_and_the_reply_says_how(url: str, engine: FakeEngine, stream: bool) -> None:
    turns = [
        {"role": "user", "content": "我叫王小明，电话13800138000，胃疼"},
        {"role": "assistant", "content": "多久了？"},
        {"role": "user", "content": "两周了"},
        {"role": "assistant", "content": "好的"},
        {"role": "user", "content": "我老婆叫李小红，身份证110101800101123，我的微信号wxid_abc123，王小明是我"},
    ]
    response = post(url, messages=turns, stream=stream, xinglin={"mask": True})
    extension = (chunks_of(response)[0] if stream else response.json())["xinglin"]
    told = extension["masked"]
    assert [(entry["turn"], entry["kinds"]) for entry in told] == [(0, ["name", "mobile"]), (2, ["name", "id_card", "wechat"])]
    seen = [turn["content"] for turn in engine.asked[-1]["messages"] if turn["role"] == "user"]
    assert seen == [told[0]["text"], "两周了", told[1]["text"]]
    assert not any(secret in "".join(seen) for secret in ("李小红", "13800138000", "110101800101123", "wxid_abc123"))
    assert "[姓名1]" in seen[0] and "[姓名2]" in seen[2]


def test_nothing_is_masked_unasked_and_the_red_flag_reads_what_was_typed(client: openai.OpenAI, engine: FakeEngine) -> None:
    turns = [{"role": "user", "content": "我叫王小明，" + CHEST}]
    plain = client.chat.completions.create(model="demo", messages=turns)
    assert "masked" not in plain.xinglin and "王小明" in engine.asked[-1]["messages"][-1]["content"]
    masked = client.chat.completions.create(model="demo", messages=turns, extra_body={"xinglin": {"mask": True}})
    assert "王小明" not in engine.asked[-1]["messages"][-1]["content"]
    assert masked.xinglin["alerts"] == plain.xinglin["alerts"] != []


def test_a_front_may_leave_the_fixed_text_out_and_still_gets_the_alerts(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": CHEST}]
    answer = client.chat.completions.create(model="demo", messages=turns, extra_body={"xinglin": {"alerts": False}})
    assert answer.choices[0].message.content == TUNED and answer.xinglin["alerts"][0]["level"] == "A"


# ---------------------------------------------------------------- red flags


def test_the_fixed_text_comes_before_the_model(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": CHEST}]
    answer = client.chat.completions.create(model="demo", messages=turns)
    alert = answer.xinglin["alerts"][0]
    assert alert["level"] == "A"
    assert answer.choices[0].message.content == f"{alert['message']}\n\n{TUNED}"
    first = next(iter(client.chat.completions.create(model="demo", messages=turns, stream=True)))
    assert first.choices[0].delta.content == f"{alert['message']}\n\n" and first.xinglin["alerts"] == [alert]


def test_a_red_flag_of_an_earlier_turn_stays(client: openai.OpenAI) -> None:
    turns = [
        {"role": "user", "content": CHEST},
        {"role": "assistant", "content": "请拨打120"},
        {"role": "user", "content": "谢谢，好多了"},
    ]
    assert client.chat.completions.create(model="demo", messages=turns).xinglin["alerts"][0]["level"] == "A"


def test_the_red_flag_is_there_while_the_model_loads_and_when_the_queue_is_full(tmp_path: Path) -> None:
    server = serving(tmp_path, FakeEngine(pause=0.05), waiting=0)
    backend, server.backend = server.backend, None
    chest = [{"role": "user", "content": CHEST}]
    with running(server) as url:
        response = post(url, messages=chest)
        assert (response.status_code, error_of(response)["code"]) == (503, "model_loading")
        assert response.json()["xinglin"]["alerts"][0]["level"] == "A"
        server.backend = backend
        with streaming(url):
            full = post(url, messages=chest)
        assert full.status_code == 429 and full.headers["retry-after"] == "5"
        assert full.json()["xinglin"]["alerts"][0]["level"] == "A"


def test_the_red_flag_is_there_when_the_model_fails(tmp_path: Path) -> None:
    with running(serving(tmp_path, FakeEngine(breaks_at="一"))) as url:
        lines = post(url, stream=True, messages=[{"role": "user", "content": CHEST}]).text.split("\n\n")
    assert json.loads(lines[0][6:])["xinglin"]["alerts"][0]["level"] == "A"
    assert json.loads(lines[1][6:])["error"]["code"] == "model_failed"


def test_every_emergency_of_the_chat_is_told_the_newest_first(client: openai.OpenAI) -> None:
    turns = [
        {"role": "user", "content": CHEST},
        {"role": "assistant", "content": "请拨打120"},
        {"role": "user", "content": "不想活了，想从楼上跳下去"},
        {"role": "assistant", "content": "请别这样"},
        {"role": "user", "content": "谢谢"},
    ]
    answer = client.chat.completions.create(model="demo", messages=turns)
    assert [alert["rule"] for alert in answer.xinglin["alerts"]] == ["self-harm", "heart-attack"]
    text = answer.choices[0].message.content
    assert text.index("12356") < text.index(answer.xinglin["alerts"][1]["message"]) < text.index(TUNED)


HARMED = [{"role": "user", "content": [{"type": "text", "text": CHEST}]}]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 9},
        {"n": 2},
        {"model": "none"},
        {"model": None},
        {"xinglin": {"structure": "x"}},
        {"messages": [*HARMED, {"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": [*HARMED[0]["content"], {"type": "image_url"}]}]},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_refused_gets_its_red_flag_all_the_same(url: str, fields: dict[str, object], stream: bool) -> None:
    response = post(url, **({"messages": HARMED, "stream": stream} | fields))
    assert response.status_code in (400, 404)
    assert response.json()["xinglin"]["alerts"][0]["rule"] == "heart-attack"


def test_a_wrong_key_or_a_long_prompt_does_not_hide_the_red_flag(locked: str, url: str) -> None:
    refused = post(locked, messages=HARMED)
    assert (refused.status_code, refused.json()["xinglin"]["alerts"][0]["rule"]) == (401, "heart-attack")
    long = post(url, messages=[{"role": "user", "content": CHEST + "，天气不错" * 2000}])
    assert (long.status_code, long.json()["xinglin"]["alerts"][0]["rule"]) == (400, "heart-attack")


class Hanging(FakeEngine):
    """An engine that takes ``pause`` seconds before it begins, or breaks there."""

    def prepare(self, messages, settings, post):
        time.sleep(self.pause)
        if self.breaks_at == "begin":
            raise MemoryError("as told")
        self.pause = 0.0
        return super().prepare(messages, settings, post)


def test_a_stream_brings_the_red_flag_while_the_model_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xinglin.serve.answering.HELD", 0.1)
    with running(serving(tmp_path, Hanging(pause=1.0))) as url:
        body = {"model": "demo", "messages": HARMED, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            begun = time.monotonic()
            assert json.loads(next(lines)[6:])["xinglin"]["alerts"][0]["rule"] == "heart-attack"
            assert time.monotonic() - begun < 0.5
            rest = "".join(lines)
        assert rest.endswith("[DONE]") and TUNED[-1] in rest


@pytest.mark.parametrize("stream", [False, True])
def test_the_red_flag_is_there_when_the_model_breaks_before_it_begins(tmp_path: Path, stream: bool) -> None:
    with running(serving(tmp_path, Hanging(breaks_at="begin"))) as url:
        response = post(url, messages=HARMED, stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "model_failed")
        assert response.json()["xinglin"]["alerts"][0]["rule"] == "heart-attack"
        assert gauges(url)["xinglin_running"] == 0


# ---------------------------------------------------------------- errors (16, 17, 18, 22, 25)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"model": None}, "model"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ],
)
def test_a_wrong_field_is_named(url: str, fields: dict[str, object], param: str) -> None:
    response = post(url, **fields)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'{"model": "demo", "temperature": NaN}', "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b'{"model": "\\ud800"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"model": "demo", "seed": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"model": "demo"}', "text/plain"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_not_json_is_400(url: str, data: bytes, kind: str) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", content=data, headers={"content-type": kind})
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"


def test_a_huge_body_is_refused(url: str) -> None:
    assert post(url, messages=[{"role": "user", "content": "x" * 1_100_000}]).status_code == 413


def test_a_prompt_that_does_not_fit_says_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="8000") as caught:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "长" * 9000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/", 405)]
)
def test_unknown_paths_and_methods_answer_in_the_envelope(url: str, method: str, path: str, status: int) -> None:
    response = httpx.request(method, url + path)
    assert response.status_code == status
    assert path in error_of(response)["message"]


def test_every_response_has_a_request_id_of_its_own(url: str) -> None:
    ids = {httpx.get(f"{url}/health").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


# ---------------------------------------------------------------- JSON (21)


@pytest.mark.parametrize("stream", [False, True])
def test_json_answers_have_the_three_keys(client: openai.OpenAI, stream: bool) -> None:
    form = {"type": "json_object"}
    if stream:
        chunks = client.chat.completions.create(model="demo", messages=QUESTION, response_format=form, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = client.chat.completions.create(model="demo", messages=QUESTION, response_format=form).choices[0].message.content
    assert json.loads(text) == dict(schema.Answer.parse(TUNED).sections)


def test_parse_of_the_client_fills_a_model_of_the_titles(client: openai.OpenAI) -> None:
    sections = pydantic.create_model("Sections", **dict.fromkeys(schema.TITLES, (str, ...)))
    answer = client.chat.completions.parse(model="demo", messages=QUESTION, response_format=sections)
    assert answer.choices[0].message.parsed.model_dump() == dict(schema.Answer.parse(TUNED).sections)


def asked_schema(url: str, engine: FakeEngine, wanted: object) -> tuple[object, object]:
    """What reaches the engine: (schema it has to keep to, whether it writes sections)."""
    response = post(url, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}})
    assert response.status_code == 200
    asked = engine.asked[-1]
    return asked["json_schema"] and json.loads(asked["json_schema"]), asked["sections"]


def test_the_titles_as_strings_are_answered_with_the_sections_and_any_other_schema_binds_the_model(
    url: str, engine: FakeEngine
) -> None:
    titles = {"type": "object", "properties": {title: {"type": "string"} for title in schema.TITLES}}
    assert asked_schema(url, engine, titles) == ("", True)
    longer = {"type": "object", "properties": {title: {"type": "string", "minLength": 9} for title in schema.TITLES}}
    assert asked_schema(url, engine, longer) == (longer, False)
    dose = {"type": "object", "properties": {"dose": {"type": "number"}}}
    assert asked_schema(url, engine, dose) == (dose, False)


@pytest.mark.parametrize("wanted", [None, {}, "x", {"type": "string", "description": "长" * 20_000}])
def test_a_missing_or_huge_schema_is_400(url: str, wanted: object) -> None:
    response = post(url, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}})
    assert (response.status_code, error_of(response)["param"]) == (400, "response_format")


def test_the_form_is_the_servers_unless_the_request_names_one(tmp_path: Path) -> None:
    engine = FakeEngine()
    server = serving(tmp_path, engine)
    with running(server) as url:
        for structure, asked in (
            ("enforced", {}),
            ("enforced", {"structure": "free"}),
            ("free", {}),
            ("free", {"structure": "enforced"}),
        ):
            server.structure = structure
            assert post(url, xinglin=asked).status_code == 200
        assert [each["sections"] for each in engine.asked] == [True, False, False, True]
        post(url, response_format={"type": "json_object"})
        assert engine.asked[-1]["sections"] is True
        assert post(url, xinglin={"structure": "none"}).status_code == 400


# ---------------------------------------------------------------- the key (14, 24)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(serving(tmp_path_factory.mktemp("runs"), key="secret")) as address:
        yield address


@pytest.mark.parametrize(
    "given",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}, {"authorization": "Bearer sécret".encode()}],
)
def test_a_missing_or_wrong_key_is_401(locked: str, given: dict[str, str]) -> None:
    response = httpx.get(f"{locked}/v1/models", headers=given)
    assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_every_route_but_health_and_the_page_needs_the_key(tmp_path: Path) -> None:
    from xinglin.serve.api import create_app
    from xinglin.serve.page import FILES

    server = serving(tmp_path, key="secret")
    routes = {(route.path, method) for route in create_app(server).routes for method in route.methods}
    assert {path for path, _ in routes} > {"/v1/chat/completions", "/v1/feedback", "/v1/runs", "/metrics"}
    with running(server) as url:
        for path, method in routes:
            status = httpx.request(method, url + path.replace("{number:int}", "1").replace("{name:path}", "x")).status_code
            assert (status == 200) if path in {"/health", *FILES} else (status == 401), (method, path, status)


def test_the_right_key_opens(locked: str) -> None:
    with openai.OpenAI(base_url=f"{locked}/v1", api_key="secret") as client:
        assert client.models.list().data[0].id == "demo"


def test_without_a_key_only_this_machine_by_name_is_answered(url: str) -> None:
    response = httpx.get(f"{url}/v1/models", headers={"host": "evil.example"})
    assert (response.status_code, error_of(response)["code"]) == (403, "host_not_allowed")


# ---------------------------------------------------------------- life of a request (23, 24, 25)


def gauges(url: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_health_and_metrics(tmp_path: Path) -> None:
    server = serving(tmp_path)
    with running(server) as url:
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        post(url)
        post(url, stream=True, messages=[{"role": "user", "content": CHEST}])
        post(url, n=2)
        values = gauges(url)
        server.backend = None
        loading = httpx.get(f"{url}/health")
    assert (loading.status_code, loading.json()) == (503, {"status": "loading"})
    assert values['xinglin_tokens_total{kind="completion"}'] == 2 * len(TUNED)
    assert values['xinglin_requests_total{status="400"}'] == 1
    assert values['xinglin_alerts_total{level="A"}'] == 1
    assert values["xinglin_first_text_seconds_count"] == 2
    assert (values["xinglin_running"], values["xinglin_queued"]) == (0, 0)


@contextlib.contextmanager
def streaming(url: str) -> Iterator[Iterator[str]]:
    """A stream that is open, its first bytes read; left, and so closed, with the block."""
    body = {"model": "demo", "messages": QUESTION, "stream": True}
    with httpx.Client() as client, client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        parts = response.iter_text()
        next(parts)
        yield parts


def test_a_client_that_leaves_a_stream_frees_the_model_within_a_second(tmp_path: Path) -> None:
    engine = FakeEngine(pause=0.05)
    with running(serving(tmp_path, engine)) as url:
        with streaming(url):
            wait_until(lambda: engine.running == 1)
            assert gauges(url)["xinglin_running"] == 1
        wait_until(lambda: engine.running == 0, 1.0)
        wait_until(lambda: gauges(url)["xinglin_running"] == 0, 1.0)
        assert gauges(url)["xinglin_aborted_total"] == 1


def test_a_client_that_gives_up_on_a_whole_answer_frees_the_model_within_a_second(tmp_path: Path) -> None:
    engine = FakeEngine(pause=0.05)
    with running(serving(tmp_path, engine)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json={"model": "demo", "messages": QUESTION}, timeout=0.4)
        assert len(engine.asked) == 1
        wait_until(lambda: engine.running == 0, 1.0)
        wait_until(lambda: gauges(url)["xinglin_aborted_total"] == 1, 1.0)


def test_a_client_that_leaves_the_queue_gives_its_place_back(tmp_path: Path) -> None:
    engine = FakeEngine(pause=0.05)
    server = serving(tmp_path, engine, waiting=1)
    with running(server) as url, streaming(url):
        with streaming(url):
            wait_until(lambda: server.gate.waiting == 1)
            full = post(url)
            assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
            assert int(full.headers["retry-after"]) > 0
        wait_until(lambda: server.gate.waiting == 0, 1.0)
        assert engine.running == 1


def test_an_error_inside_a_stream_is_an_event_and_then_the_end(tmp_path: Path) -> None:
    with (
        running(serving(tmp_path, FakeEngine(breaks_at="二"))) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client,
    ):
        with pytest.raises(openai.APIError, match="the model failed"):
            list(client.chat.completions.create(model="demo", messages=QUESTION, stream=True))
        assert gauges(url)["xinglin_failures_total"] == 1
        assert gauges(url)["xinglin_running"] == 0


def test_an_error_before_a_whole_answer_is_500_in_the_envelope(tmp_path: Path) -> None:
    with running(serving(tmp_path, FakeEngine(breaks_at="二"))) as url:
        response = post(url)
        assert (response.status_code, error_of(response)["code"]) == (500, "model_failed")


# ---------------------------------------------------------------- the page's files


def test_the_page_is_strict_small_and_takes_its_titles_from_the_schema(url: str) -> None:
    page = httpx.get(url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    block = page.text.partition('id="known">')[2].partition("</script>")[0]
    assert json.loads(block)["titles"] == list(schema.TITLES)
    assert schema.DISCLAIMER in page.text and "{{" not in page.text
    assert len(page.content) < 40_000 and page.num_bytes_downloaded < 10_000
    static = Path(__file__).parents[2] / "xinglin" / "serve" / "static"
    for file in static.iterdir():
        assert not any(title in file.read_text(encoding="utf-8") for title in schema.TITLES), file.name
