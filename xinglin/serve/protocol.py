"""The wire format: a chat completion request read and checked, responses, stream chunks and errors written.

In: the bytes of a request body. Out: a frozen ``Ask``, or a ``Refusal`` that becomes the error every OpenAI client understands::

    {"error": {"message": "temperature: Input should be less than or equal to 2", "type": "invalid_request_error",
               "param": "temperature", "code": "invalid_value"}}
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xinglin import schema
from xinglin.generation import LONGEST, Settings
from xinglin.schema import Message

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
# What a model without tools sees in place of a role it was not trained on.
SEEN_AS = {"developer": "system", "tool": "user", "function": "user"}
SCHEMA = 20_000  # characters of a JSON schema
KINDS = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """The request is not answered: an HTTP status and what the error says."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Ask:
    """A checked request: what to answer and how."""

    model: str
    messages: list[Message]
    settings: Settings = field(default_factory=Settings)
    stream: bool = False
    usage: bool = False
    as_json: bool = False
    patches: bool = False
    user: str = ""
    fixed_text: bool = True
    mask: bool = False
    masked: list[dict[str, Any]] | None = None  # what was masked, turn by turn; None where nobody asked for it

    @property
    def data_only(self) -> bool:
        """Whether the answer is read by a machine: nothing may stand before its JSON."""
        return self.as_json or bool(self.settings.json_schema)

    @property
    def questions(self) -> list[str]:
        """The user's turns, oldest first."""
        return [turn["content"] for turn in self.messages if turn["role"] == "user"]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Part(_Wire):
    type: str
    text: str | None = None


class Turn(_Wire):
    role: Role
    content: str | list[Part] | None = None


class StreamOptions(_Wire):
    include_usage: bool = False


class Extension(_Wire):
    sections: bool = False
    alerts: bool = True
    mask: bool = False
    structure: Literal["enforced", "free"] | None = None


class Body(_Wire):
    """The fields read; others are ignored, as clients send many."""

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    xinglin: Extension | None = None


# ---------------------------------------------------------------- reading


def read(data: bytes, structure: Literal["enforced", "free"] = "enforced") -> Ask:
    """The request in ``data``; ``structure`` holds where it names none. Raises ``Refusal`` (400) that names the field."""
    try:
        body = Body.model_validate(decode(data))
    except ValidationError as error:
        raise _invalid(error) from None
    _refuse_unsupported(body)
    extension = body.xinglin or Extension()
    as_json, json_schema = _json_form(body.response_format)
    enforced = as_json or (not json_schema and (extension.structure or structure) == "enforced")
    return Ask(
        model=body.model,
        messages=_messages(body.messages),
        settings=_settings(body, enforced, json_schema),
        stream=bool(body.stream),
        usage=body.stream_options is not None and body.stream_options.include_usage,
        as_json=as_json,
        patches=extension.sections,
        user=body.user or "",
        fixed_text=extension.alerts,
        mask=extension.mask,
    )


def questions_in(data: bytes) -> list[str]:
    """The user's turns in a request that is refused, as far as there are any to be found: a red flag is shown with any error."""
    try:
        turns = decode(data).get("messages")
    except Refusal:
        return []
    found = [
        _texts(turn.get("content")) for turn in _dicts(turns) if turn.get("role") not in ("assistant", "system", "developer")
    ]
    return [text for texts in found if (text := "\n".join(texts))]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _texts(content: object) -> list[str]:
    texts = [content] if isinstance(content, str) else [part.get("text") for part in _dicts(content)]
    return [text for text in texts if isinstance(text, str)]


def _settings(body: Body, sections: bool, json_schema: str) -> Settings:
    return Settings(
        max_new_tokens=body.max_completion_tokens or body.max_tokens or LONGEST,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=_stops(body.stop),
        sections=sections,
        json_schema=json_schema,
    )


def decode(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ``Refusal`` (400) for anything else: bad UTF-8, NaN, depth, half a surrogate pair."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {_short(error)}", "invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"the body is a JSON {type(value).__name__}, not an object", "invalid_json")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120]


def _invalid(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False)[0]
    where = list(first["loc"])
    depth = 3 if where[:1] == ["messages"] else 1
    param = ".".join(str(part) for part in where[:depth])
    return Refusal(400, f"{param}: {first['msg']}", "missing_field" if first["type"] == "missing" else "invalid_value", param)


def _refuse_unsupported(body: Body) -> None:
    asked = {"n": body.n is not None and body.n != 1, "logprobs": bool(body.logprobs), "tools": bool(body.tools)}
    for name, given in asked.items():
        if given:
            raise Refusal(400, f"{name}: not supported here; leave it out", "unsupported_parameter", name)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > 4 or not all(0 < len(text) <= 256 for text in stops):
        raise Refusal(400, "stop: at most 4 strings of 1 to 256 characters", "invalid_value", "stop")
    return stops


def _json_form(form: Mapping[str, Any] | None) -> tuple[bool, str]:
    """(whether the sections are asked for as JSON, the JSON schema that the model has to keep to or "")."""
    kind = (form or {}).get("type", "text")
    if kind in ("text", "json_object"):
        return bool(kind == "json_object"), ""
    if kind != "json_schema":
        known = "text, json_object and json_schema exist"
        raise Refusal(400, f"response_format.type: {kind!r}; {known}", "invalid_value", "response_format")
    wanted = _inside(_inside(form or {}, "json_schema"), "schema")
    text = dumps(wanted)
    if not wanted or len(text) > SCHEMA:
        message = f"response_format.json_schema.schema: an object of at most {SCHEMA} characters"
        raise Refusal(400, message, "invalid_value", "response_format")
    return (True, "") if _is_sections(wanted) else (False, text)


def _is_sections(wanted: Mapping[str, Any]) -> bool:
    """Whether a schema asks for the titles as strings and for nothing more: the sections themselves then are the answer."""
    properties = _inside(wanted, "properties")
    plain = {"type", "title", "description"}
    return (
        wanted.get("type") == "object"
        and set(wanted) <= plain | {"properties", "required", "additionalProperties", "$schema"}
        and set(properties) == set(schema.TITLES)
        and all(_inside(properties, title).get("type") == "string" for title in schema.TITLES)
        and all(set(_inside(properties, title)) <= plain for title in schema.TITLES)
    )


def _inside(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _messages(turns: Sequence[Turn]) -> list[Message]:
    """System text first (ours where the client gave none), then user and assistant in turn, neighbours of one role joined."""
    system: list[str] = []
    talk: list[Message] = []
    for number, turn in enumerate(turns):
        role, text = SEEN_AS.get(turn.role, turn.role), _text(turn, number)
        if role == "system":
            system.append(text)
        elif talk and talk[-1]["role"] == role:
            talk[-1]["content"] += "\n\n" + text
        else:
            talk.append({"role": role, "content": text})
    if not talk or talk[-1]["role"] != "user" or not talk[-1]["content"].strip():
        raise Refusal(400, "messages: the last message has to be the user's, with text in it", "invalid_value", "messages")
    if not system:
        return schema.messages(talk[-1]["content"], talk[:-1])
    return [{"role": "system", "content": "\n\n".join(system)}, *talk]


def _text(turn: Turn, number: int) -> str:
    if turn.content is None or isinstance(turn.content, str):
        return turn.content or ""
    for part in turn.content:
        if part.type != "text" or part.text is None:
            where = f"messages.{number}.content"
            raise Refusal(400, f"{where}: a part of type {part.type!r}; only text can be read", "unsupported_content", where)
    return "\n".join(part.text or "" for part in turn.content)


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class Head:
    """What stays the same over all chunks of one answer."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def shape(self, kind: str) -> dict[str, Any]:
        names = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return names | {"system_fingerprint": self.fingerprint}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def completion(head: Head, text: str, finish: str, tokens: Mapping[str, int], extension: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return head.shape("chat.completion") | {"choices": [choice], "usage": dict(tokens), "xinglin": dict(extension)}


def chunk(
    head: Head, delta: Mapping[str, Any], finish: str | None = None, extension: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
    value = head.shape("chat.completion.chunk") | {"choices": [choice]}
    return value | {"xinglin": dict(extension)} if extension else value


def usage_chunk(head: Head, tokens: Mapping[str, int]) -> dict[str, Any]:
    return head.shape("chat.completion.chunk") | {"choices": [], "usage": dict(tokens)}


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event. The separators that some line readers split at are escaped; everything else is plain UTF-8."""
    text = dumps(value).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    return f"data: {text}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
