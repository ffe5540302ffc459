"""A server behind this one that decodes by a pattern, or that has to be mended."""

import json
import random
import re
import socket
from pathlib import Path

import httpx
import pytest
from serve_fakes import BASE, TUNED, running, serving

from xinglin import schema
from xinglin.serve.mending import MISSING, Mender
from xinglin.serve.upstream import Upstream

CHEST = "我爸胸口压着疼半个多小时了，一身冷汗"
QUESTION = [{"role": "user", "content": "胃疼两周了怎么办？"}]
FIRST, SECOND, THIRD = schema.TITLES


def mended(text: str, size: int = 3, **missing: str) -> str:
    """All that is shown of a text that comes in pieces of ``size`` characters."""
    mender, shown = Mender(), ""
    for at in range(0, len(text), size):
        shown += mender.feed(text[at : at + size])
    shown += mender.flush()
    for title in mender.missing:
        shown += mender.add(title, missing.get(title, ""))
    shown += mender.end(False)
    assert shown == mender.text and schema.check(shown) == [], shown
    return shown


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_complete_answer_stays_as_it_is(size: int) -> None:
    assert mended(TUNED, size) == TUNED


@pytest.mark.parametrize("form", ["### {}\n", "**{}**\n", "【{}】", "{}：", "## 一、{}\n"])
def test_titles_of_other_forms_become_ours(form: str) -> None:
    text = "\n".join(form.format(title) + "说明白了。" for title in schema.TITLES)
    sections = schema.Answer.parse(mended(text)).sections
    assert sections == dict.fromkeys(schema.TITLES, "说明白了。")


def test_text_without_titles_is_the_first_section_and_the_others_are_asked_for() -> None:
    text = mended(BASE, **{SECOND: f"二、{SECOND}\n吃坏了。", THIRD: "看医生"})
    assert dict(schema.Answer.parse(text).sections) == {FIRST: BASE, SECOND: "吃坏了。", THIRD: "看医生。"}


def test_a_section_that_is_skipped_or_empty_says_so_and_repeated_titles_are_dropped() -> None:
    text = mended(f"{FIRST}\n\n{THIRD}\n看医生。\n{FIRST}\n又说。\n")
    sections = schema.Answer.parse(text).sections
    assert (sections[FIRST], sections[SECOND]) == (MISSING, MISSING)
    assert sections[THIRD] == "看医生。\n又说。"


def test_noise_is_mended() -> None:
    generator = random.Random(0)
    parts = ["\n", "疼", "。", "【", "】", "###", "：", " ", "二、", *schema.TITLES, *schema.ALIASES, "1. "]
    for _ in range(300):
        mended("".join(generator.choice(parts) for _ in range(generator.randint(0, 40))), generator.randint(1, 5))


def test_the_pattern_matches_complete_answers_only() -> None:
    regex = re.compile(schema.pattern(60))
    assert regex.fullmatch(TUNED)
    assert not regex.fullmatch(TUNED.replace(SECOND, FIRST)) and not regex.fullmatch(TUNED[:-1])


class Behind:
    """A server of one kind that answers with ``texts`` in turn, the last one for good; ``asked`` holds the bodies it was sent."""

    def __init__(self, kind: str, *texts: str, finish: str = "stop") -> None:
        self.kind, self.texts, self.finish = kind, list(texts), finish
        self.asked: list[dict[str, object]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [{"id": "demo", "owned_by": self.kind}]})
        self.asked.append(json.loads(request.content))
        text = self.texts[min(len(self.asked), len(self.texts)) - 1]
        if text == "busy":
            return httpx.Response(429, json={"error": {"message": "busy"}})
        values = [{"choices": [{"delta": {"content": text[at : at + 7]}}]} for at in range(0, len(text), 7)]
        values.append({"choices": [{"delta": {}, "finish_reason": self.finish}]})
        values.append({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
        return httpx.Response(200, text="".join(f"data: {json.dumps(value)}\n\n" for value in values) + "data: [DONE]\n\n")


def ask(folder: Path, behind: Behind, **fields: object) -> dict:
    backend = Upstream("http://upstream/v1", "demo", transport=httpx.MockTransport(behind))
    with running(serving(folder, backend=backend)) as url:
        body = {"model": "demo", "messages": QUESTION} | fields
        return httpx.post(f"{url}/v1/chat/completions", json=body).json()


@pytest.mark.parametrize(
    ("kind", "find"), [("vllm", lambda body: body["structured_outputs"]["regex"]), ("sglang", lambda body: body["regex"])]
)
def test_a_server_that_decodes_by_a_pattern_is_given_one(tmp_path: Path, kind: str, find) -> None:
    behind = Behind(kind, TUNED)
    answer = ask(tmp_path, behind, max_tokens=400)
    assert answer["choices"][0]["message"]["content"] == TUNED and len(behind.asked) == 1
    assert find(behind.asked[0]) == schema.pattern(50)


def test_another_xinglin_is_told_the_form_and_a_free_answer_passes_as_it_is(tmp_path: Path) -> None:
    behind = Behind("xinglin", BASE)
    assert ask(tmp_path, behind)["choices"][0]["message"]["content"] == BASE
    assert ask(tmp_path, behind, xinglin={"structure": "free"})["choices"][0]["message"]["content"] == BASE
    assert [body["xinglin"] for body in behind.asked] == [
        {"structure": "enforced", "alerts": False},
        {"structure": "free", "alerts": False},
    ]


def test_xinglin_behind_xinglin_tells_an_emergency_once(tmp_path: Path) -> None:
    with (
        running(serving(tmp_path / "behind")) as behind,
        running(serving(tmp_path / "front", backend=Upstream(f"{behind}/v1", "demo"))) as url,
    ):
        body = {"model": "demo", "messages": [{"role": "user", "content": CHEST}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body).json()
    alert = answer["xinglin"]["alerts"][0]
    assert answer["choices"][0]["message"]["content"] == f"{alert['message']}\n\n{TUNED}"


def test_missing_sections_are_asked_for_once_and_counted(tmp_path: Path) -> None:
    behind = Behind("library", f"### {FIRST}\n{BASE}", "吃坏了。", "看医生。")
    answer = ask(tmp_path, behind)
    assert answer["xinglin"]["complete"]
    assert answer["xinglin"]["sections"] == {FIRST: BASE, SECOND: "吃坏了。", THIRD: "看医生。"}
    assert answer["usage"]["completion_tokens"] == 15
    assert [set(body) & {"regex", "structured_outputs", "xinglin"} for body in behind.asked] == [set()] * 3
    assert SECOND in behind.asked[1]["messages"][-1]["content"] and BASE in behind.asked[1]["messages"][-2]["content"]


def test_a_server_that_refuses_the_second_time_leaves_a_section_that_says_so(tmp_path: Path) -> None:
    answer = ask(tmp_path, Behind("library", BASE, "busy"))
    assert answer["xinglin"]["complete"] and answer["xinglin"]["sections"][THIRD] == MISSING


def test_what_the_limit_cut_is_marked_and_said(tmp_path: Path) -> None:
    answer = ask(tmp_path, Behind("library", TUNED[:-9], finish="length"))["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (f"{TUNED[:-9]}……", "length")


def test_what_the_client_cuts_stays_cut(tmp_path: Path) -> None:
    behind = Behind("vllm", BASE)
    assert ask(tmp_path, behind, stop=["三、"])["choices"][0]["message"]["content"] == BASE
    assert ask(tmp_path, behind, max_tokens=20)["choices"][0]["message"]["content"] == BASE


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_accepts_and_never_answers_does_not_hold_the_red_flag_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("xinglin.serve.answering.HELD", 0.1)
    monkeypatch.setattr("xinglin.serve.upstream.LISTING", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        backend = Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "demo")
        with running(serving(tmp_path, backend=backend)) as url:
            body = {"model": "demo", "messages": [{"role": "user", "content": CHEST}], "stream": stream}
            text = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=3).text
    first = json.loads(text.split("\n\n")[0].removeprefix("data: "))
    assert first["xinglin"]["alerts"][0]["rule"] == "heart-attack"
    assert "upstream_unavailable" in text


def test_a_json_schema_is_passed_on(tmp_path: Path) -> None:
    wanted = {"type": "object", "properties": {"dose": {"type": "number"}}}
    behind = Behind("vllm", '{"dose": 1}')
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}}
    assert ask(tmp_path, behind, response_format=form)["choices"][0]["message"]["content"] == '{"dose": 1}'
    assert behind.asked[0]["response_format"]["json_schema"]["schema"] == wanted
