"""A server behind this one: another instance of ours, and what a broken one sends."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from serve_fakes import BASE, TUNED, FakeEngine, running, serving

from xinglin.serve.upstream import Upstream

QUESTION = [{"role": "user", "content": "胃疼两周了怎么办？"}]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeEngine]]:
    engine = FakeEngine()
    with running(serving(tmp_path_factory.mktemp("runs"), engine, key="inner")) as url:
        yield f"{url}/v1", engine


def test_answers_streams_and_counts_pass_through(tmp_path: Path, behind: tuple[str, FakeEngine]) -> None:
    address, engine = behind
    server = serving(tmp_path, backend=Upstream(address, "demo", "inner"))
    with running(server) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        assert [model.id for model in client.models.list().data] == ["demo", "Qwen2.5-fake"]
        answer = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0.3, seed=5)
        assert (answer.choices[0].message.content, answer.xinglin["complete"]) == (TUNED, True)
        assert (engine.asked[-1]["temperature"], engine.asked[-1]["seed"]) == (0.3, 5)
        assert answer.usage.completion_tokens == len(TUNED)
        chunks = list(client.chat.completions.create(model="Qwen2.5-fake", messages=QUESTION, stream=True, max_tokens=5))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == BASE[:5]
        assert chunks[-1].choices[0].finish_reason == "length"


def test_an_upstream_that_is_down_is_503_with_the_red_flag(tmp_path: Path) -> None:
    with running(serving(tmp_path, backend=Upstream("http://127.0.0.1:9/v1", "demo"))) as url:
        chest = [{"role": "user", "content": "我爸胸口压着疼半个多小时了，一身冷汗"}]
        response = httpx.post(f"{url}/v1/chat/completions", json={"model": "demo", "messages": chest})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert response.json()["xinglin"]["alerts"][0]["level"] == "A"


MODELS = {"data": [{"id": "demo"}]}
SSE = {"content-type": "text/event-stream"}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (httpx.Response(400, json={"error": {"message": "too long", "code": "context_length_exceeded"}}), 400, "too long"),
        (httpx.Response(429, json={"error": {"message": "busy"}}), 429, "busy"),
        (httpx.Response(500, text="<html>oops</html>"), 502, "oops"),
        (httpx.Response(401, json={"detail": "no"}), 502, "no"),
        (httpx.Response(200, headers=SSE, text='data: {"error": {"message": "out of memory"}}\n\n'), 502, "out of memory"),
        (httpx.Response(200, headers=SSE, text="data: {broken\n\n"), 500, "the model failed"),
    ],
)
def test_what_a_broken_upstream_sends_becomes_one_clear_error(
    tmp_path: Path, answer: httpx.Response, status: int, said: str
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=MODELS) if request.method == "GET" else answer

    backend = Upstream("http://upstream/v1", "demo", transport=httpx.MockTransport(handle))
    with running(serving(tmp_path, backend=backend)) as url:
        response = httpx.post(f"{url}/v1/chat/completions", json={"model": "demo", "messages": QUESTION})
    assert (response.status_code, said in response.json()["error"]["message"]) == (status, True)


def test_the_key_of_the_upstream_is_not_shown_in_its_errors(tmp_path: Path) -> None:
    backend = Upstream("http://127.0.0.1:9/v1", "demo", "very-secret")
    with running(serving(tmp_path, backend=backend)) as url:
        body = json.dumps({"model": "demo", "messages": QUESTION})
        response = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert "very-secret" not in response.text
