"""The chat client: whatever an endpoint answers becomes a ``Reply``, and says what was paid."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xinglin import llm

ENDPOINT = llm.Endpoint("https://h/v1", "m", "sk-secret")


def refusal(status: int, error: object, **headers: str) -> llm.Reply:
    response: Any = SimpleNamespace(status=status, headers=headers)
    return llm._read(response, json.dumps({"error": error}).encode(), ENDPOINT)


def answer(message: object, finish: str = "stop", **rest: object) -> llm.Reply:
    return llm._read_answer(json.dumps({"choices": [{"message": message, "finish_reason": finish}], **rest}).encode())


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("error", [{"code": "Arrearage"}, {"type": "INSUFFICIENT_QUOTA"}, {"message": "账户已欠费"}])
@pytest.mark.parametrize("status", [400, 403, 429])
def test_an_empty_account_stops_the_run_whatever_the_status(status: int, error: dict[str, str]) -> None:
    reply = refusal(status, error)
    assert reply.verdict == "stop"
    assert "the balance is used up" in reply.reason


def test_only_what_one_request_can_cause_rejects_one_row() -> None:
    assert {refusal(status, {}).verdict for status in (400, 413, 422)} == {"reject"}
    assert {refusal(status, {}).verdict for status in (204, 405, 406, 407, 410, 418, 451)} == {"stop"}
    assert {refusal(status, {}).verdict for status in (408, 425, 429, 500)} == {"retry"}
    assert "a POST was refused: check the URL, base_url usually ends in /v1" in refusal(405, {}).reason
    assert "the proxy" in refusal(407, {}).reason
    assert "check the URL" in refusal(410, {}).reason


def test_an_error_message_is_cut_after_the_key_is_out_of_it() -> None:
    assert "sk-" not in refusal(400, {"message": "x" * 195 + "sk-secret"}).reason
    assert refusal(400, {"message": "\ud800"}).reason.encode()


# ---------------------------------------------------------------- answers


def test_half_characters_can_be_stored() -> None:
    reply = answer({"content": "好\ud83d"}, finish="\ud83d")
    assert reply.text == "好?"
    assert reply.finish.encode()


def test_an_answer_that_cannot_be_read_may_have_been_paid() -> None:
    for content in (b'{"choices": [{"mess', b"data: {}\n\ndata: [DONE]", b"\n\n" + b'{"a":' * 100_000):
        reply = llm._read_answer(content)
        assert (reply.verdict, reply.lost, reply.usage) == ("retry", True, None)
    for content in (b"<html>busy</html>", b"[" * 100_000, b"[]", b'{"error": "busy"}', b'{"choices": []}'):
        reply = llm._read_answer(content)
        assert (reply.verdict, reply.lost, reply.usage, reply.uncounted) == ("retry", False, None, False)


def test_thinking_without_an_answer_is_an_empty_answer_that_was_paid() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    reply = answer({"reasoning_content": "…"}, finish="length", usage=usage)
    assert reply == llm.Reply("retry", reason="empty answer", finish="length", usage=llm.Usage(5, 0, 7))
    assert llm._read_answer(json.dumps({"choices": [], "usage": usage}).encode()).usage == llm.Usage(5, 0, 7)


def test_an_answer_in_parts_is_joined() -> None:
    assert answer({"content": [{"type": "text", "text": "一、"}, {"text": None}, 3, {"text": "好"}]}).text == "一、好"
    assert answer({"content": {"text": "好"}}).reason == "empty answer"


@pytest.mark.parametrize("usage", [None, [], "12", 3, {}])
def test_an_answer_without_usage_is_told_apart(usage: object) -> None:
    reply = answer({"content": "好"}, usage=usage)
    assert (reply.verdict, reply.usage, reply.uncounted) == ("ok", llm.Usage(), True)
    assert not answer({"content": "好"}, usage={"prompt_tokens": 1}).uncounted


@pytest.mark.parametrize(
    ("value", "count"),
    [(7, 7), (7.9, 7), ("7", 7), (-1, 0), (10**400, 10**9), (-(10**400), 0), (float("nan"), 0), ("inf", 0), ("x", 0), ([], 0)],
)
def test_tokens_are_counted_whatever_stands_there(value: object, count: int) -> None:
    assert answer({"content": "好"}, usage={"completion_tokens": value}).usage == llm.Usage(0, 0, count)


def test_no_more_is_cached_than_was_sent() -> None:
    for cached in ({"prompt_cache_hit_tokens": 9}, {"prompt_tokens_details": {"cached_tokens": 9}}):
        assert answer({"content": "好"}, usage={"prompt_tokens": 5, **cached}).usage == llm.Usage(5, 5, 0)
    assert answer({"content": "好"}, usage={"prompt_tokens": 5, "prompt_tokens_details": [1]}).usage == llm.Usage(5, 0, 0)


@pytest.mark.parametrize(
    ("value", "seconds"), [("2.5", 2.5), ("inf", 0), ("nan", 0), ("-3", 0), ("Mon, 01 Jan 99999999999999 00:00:00 GMT", 0)]
)
def test_only_a_usable_time_is_waited(value: str, seconds: float) -> None:
    assert refusal(429, {}, **{"retry-after": value}).retry_after == seconds


# ---------------------------------------------------------------- key and proxy


def test_a_key_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n", encoding="utf-8-sig")
    assert llm.read_key(str(tmp_path / "key")) == "sk-1"


@pytest.mark.parametrize("value", ["sk-1\nsk-2", "sk-1 sk-2"])
def test_the_key_in_the_environment_is_one_key(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llm.KEY, value)
    with pytest.raises(ValueError, match=r"^XINGLIN_LLM_KEY: holds more than the key.*$") as caught:
        llm.read_key()
    assert "sk-" not in str(caught.value)


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    endpoint = llm.endpoint("http://model.internal/v1", "m")

    async def go() -> llm.Reply:
        async with llm.client(endpoint) as http:
            return await llm.chat(http, endpoint, [{"role": "user", "content": "好"}], 5)

    reply = asyncio.run(go())
    assert reply.unreached
    assert "cannot connect to the proxy http://127.0.0.1:9" in reply.reason
    assert "secret" not in reply.reason
