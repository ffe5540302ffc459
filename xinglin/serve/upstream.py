"""A server behind this one: vLLM, SGLang, Ollama or another Xinglin, through its OpenAI-compatible API.

In: an ``Ask``. Out: its pieces. A server that can decode by a pattern (known by ``owned_by`` in its list of models) is given one
for the three sections; what comes is mended on its way, and a section that is missing at the end is asked for once::

    vLLM    {"structured_outputs": {"regex": "…"}}       others   nothing: their text is mended
    SGLang  {"regex": "…"}
    Xinglin {"xinglin": {"structure": "enforced", "alerts": false}}
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from xinglin import schema
from xinglin.generation import Reply, Settings
from xinglin.serve.backend import Model, Pieces, find
from xinglin.serve.mending import MISSING, Mender
from xinglin.serve.protocol import Ask, Refusal

OVERHEAD = 100  # tokens of titles and labels, with room to spare
LISTING = 5.0  # seconds within which a server that works lists its models
LEAST = 4  # characters of a point; with less room the answer is cut at the limit instead


class Upstream:
    """vLLM, SGLang, Ollama or another Xinglin. ``name`` is the model shown as the tuned one, where the server has it."""

    slots = 256  # the server behind batches by itself; this bound is only against exhaustion

    def __init__(self, url: str, name: str, key: str = "", transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.fingerprint = f"upstream {httpx.URL(self.url).host}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(10, read=300)
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, transport=transport)
        self._models: list[Model] = []
        self._kinds: dict[str, str] = {}

    async def models(self) -> Sequence[Model]:
        if not self._models:
            try:
                answer = await self._client.get(f"{self.url}/models", timeout=LISTING)
                self._kinds = {str(m["id"]): str(m.get("owned_by")) for m in answer.raise_for_status().json()["data"]}
                names = list(self._kinds)
                tuned = self.name if self.name in names else names[0]
            except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
                raise self._down(error) from None
            self._models = sorted((Model(name, name == tuned) for name in names), key=lambda model: not model.tuned)
        return self._models

    async def begin(self, ask: Ask) -> Pieces:
        await find(self, ask.model)
        return self._pieces(ask)

    def _pieces(self, ask: Ask) -> Pieces:
        """Mended, except that another Xinglin does it itself, and that what the client cuts stays cut."""
        settings, kind = ask.settings, self._kinds.get(ask.model)
        mends = settings.sections and kind != "xinglin" and not settings.stop and _most(settings) >= LEAST
        return self._mended(ask) if mends else self._raw(ask)

    async def _mended(self, ask: Ask) -> Pieces:
        mender, end = Mender(), Reply("", "stop", 0, 0)
        async with contextlib.aclosing(self._raw(ask)) as pieces:
            async for item in pieces:
                if isinstance(item, Reply):
                    end = item
                elif text := mender.feed(item):
                    yield text
        yield mender.flush()
        for title in mender.missing:
            answer = await self._section(ask, mender.text, title)
            yield mender.add(title, answer.text)
            end = _sum(end, answer)
        yield mender.end(end.finish_reason == "length")
        yield end

    async def _section(self, ask: Ask, text: str, title: str) -> Reply:
        """The answer when a missing section is asked for, once; what the server refuses now stands there as missing."""
        settings = replace(ask.settings, sections=False, max_new_tokens=max(1, ask.settings.max_new_tokens // 3))
        again, said = replace(ask, messages=schema.section_messages(ask.messages, text, title), settings=settings), ""
        try:
            async with contextlib.aclosing(self._raw(again)) as pieces:
                async for item in pieces:
                    if isinstance(item, Reply):
                        return replace(item, text=said)
                    said += item
        except Refusal:
            said = MISSING
        return Reply(said, "stop", 0, 0)

    async def _raw(self, ask: Ask) -> Pieces:
        body = _forward(ask) | _guidance(ask.settings, self._kinds.get(ask.model, ""))
        try:
            async with self._client.stream("POST", f"{self.url}/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise _passed_on(answer.status_code, await answer.aread())
                finish, tokens = "stop", dict[str, int]()
                async for line in answer.aiter_lines():
                    value = _event(line)
                    tokens = value.get("usage") or tokens
                    for choice in value.get("choices", ()):
                        finish = choice.get("finish_reason") or finish
                        if text := choice["delta"].get("content"):
                            yield text
        except httpx.HTTPError as error:
            raise self._down(error) from None
        yield Reply("", finish, tokens.get("prompt_tokens", 0), tokens.get("completion_tokens", 0))

    def _down(self, error: Exception) -> Refusal:
        reason = f"{type(error).__name__} {error}".strip()
        return Refusal(503, f"{self.url} does not answer ({reason}); is it running?", "upstream_unavailable", retry_after=5)

    async def close(self) -> None:
        await self._client.aclose()


def _forward(ask: Ask) -> dict[str, Any]:
    settings = ask.settings
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": ask.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
    }
    if settings.seed is not None:
        body["seed"] = settings.seed
    if settings.stop:
        body["stop"] = list(settings.stop)
    return body


def _guidance(settings: Settings, kind: str) -> dict[str, Any]:
    """What makes a server of that kind keep to the form asked for."""
    if settings.json_schema:
        named = {"name": "answer", "schema": json.loads(settings.json_schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if kind == "xinglin":  # whose fixed text stands before the answer here already
        return {"xinglin": {"structure": "enforced" if settings.sections else "free", "alerts": False}}
    if not settings.sections or settings.stop:
        return {}
    regex = schema.pattern(max(LEAST, _most(settings)))
    if kind == "vllm":
        return {"structured_outputs": {"regex": regex}}
    return {"regex": regex} if kind == "sglang" else {}


def _most(settings: Settings) -> int:
    """Characters a point may have, so that six fit; a Chinese character is at most a token, on average two thirds of one."""
    return (settings.max_new_tokens - OVERHEAD) // len(schema.PIECES)


def _sum(first: Reply, second: Reply) -> Reply:
    """The counts of both, and the reason that says more."""
    reason = "length" if "length" in (first.finish_reason, second.finish_reason) else "stop"
    return Reply("", reason, first.prompt_tokens + second.prompt_tokens, first.completion_tokens + second.completion_tokens)


def _event(line: str) -> dict[str, Any]:
    """The value of one line of the stream; empty for comments, blank lines and the end. An error in it is raised."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return {}
    value: dict[str, Any] = json.loads(data)
    if error := value.get("error"):
        raise Refusal(502, f"upstream: {error.get('message', error)}", "upstream_error")
    return value


def _passed_on(status: int, body: bytes) -> Refusal:
    """What the server behind says, with its own status where the client can do something about it."""
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), str(error.get("code") or "upstream_error")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = body.decode(errors="replace")[:200], "upstream_error"
    return Refusal(status if status in (400, 404, 413, 429) else 502, f"upstream: {message}", code)
