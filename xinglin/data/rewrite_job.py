"""What a rewrite is: the identity of a request, its price, and the rules by which a reply is judged.

In: the recipe, a record, a reply. Out: a ``Verdict``::

    Verdict(kind="unfaithful", reason="unfaithful: new drug: 布洛芬", findings=[Finding("new drug", "布洛芬", "…")])
    Verdict(kind="")        # accepted
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from xinglin import llm, schema
from xinglin.config import Price, Recipe
from xinglin.config import Rewrite as Settings
from xinglin.data.journal import ACCEPTED, FAILED, PENDING, REJECTED, Entry
from xinglin.records import Record
from xinglin.safety import faithfulness, pii
from xinglin.safety.faithfulness import Finding
from xinglin.schema import Message

TIMEOUT = 300.0  # seconds for one whole answer
ROOM = 2048  # tokens for an answer, more for a long source; doubled once when the answer is cut
TITLES = 300  # tokens beside the source's own: titles, labels, what the model adds
GROWTH = 1.3
JUDGE = "judge"  # kind of what the second model finds
JUDGED = 60  # tokens of its usual answer
EXPECTED = 520  # tokens of a usual answer, for estimates before the endpoint has counted any
DENSITY = 0.64  # tokens per Chinese character with Qwen's tokenizer
# How often a row may meet each kind of trouble, and the state it ends in then.
LIMITS = {"network": 8, "busy": 40, "blank": 3, "cut": 2, "incomplete": 3, "unfaithful": 3, "refused": 1}
ENDS = dict.fromkeys(LIMITS, REJECTED) | {"network": FAILED, "busy": FAILED}


@dataclass(frozen=True)
class Job:
    """What the answers of a run depend on; ``prompt`` and ``policy`` are hashes of the prompt and of the rules that judge."""

    settings: Settings
    endpoint: llm.Endpoint
    judge: llm.Endpoint | None
    prompt: str
    policy: str


@dataclass(frozen=True)
class Verdict:
    """``kind`` is a key of ``LIMITS``, or "" when the answer is accepted (with ``findings`` if they only flag)."""

    kind: str
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)


def prepare(recipe: Recipe) -> Job:
    """Check everything that can be checked before the first request."""
    settings = recipe.rewrite
    try:
        endpoint = llm.endpoint(settings.base_url, settings.model, settings.key_file, settings.ca_file, TIMEOUT)
        llm.tls(endpoint)
    except ValueError as error:
        raise ValueError(f"rewrite.{error}") from None
    for model in (settings.model, settings.judge):
        if settings.budget and model and model not in settings.prices:
            raise ValueError(f"rewrite.budget={settings.budget:g} needs the price of model {model!r} in rewrite.prices")
    if settings.judge and settings.model in settings.prices and settings.judge not in settings.prices:
        raise ValueError(f"rewrite.prices names no {settings.judge!r}: what the judge costs would not be counted")
    judge = replace(endpoint, model=settings.judge) if settings.judge else None
    prompt = _hash(json.dumps(schema.rewrite_messages("", ""), ensure_ascii=False))[:8]
    return Job(settings, endpoint, judge, prompt, _hash(settings.on_finding, faithfulness.version())[:8])


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def request_of(job: Job, record: Record) -> str:
    """Identity of the work: another model, prompt, question or answer is other work."""
    return _hash(job.endpoint.model, job.prompt, context(record), record.answer)


def context(record: Record) -> str:
    """The question with the turns before it, as the model and the check see it."""
    return "\n".join(turn["content"] for turn in record.messages[:-1] if turn["role"] != "system")


def masked(record: Record) -> tuple[str, str]:
    """Question and answer without personal data: the only form that leaves the machine."""
    return pii.mask(context(record)).text, pii.mask(record.answer).text


def read(job: Job, file: BinaryIO, entry: Entry) -> Record:
    """The record of a row. Raises ``ValueError`` where the file is not the one the rows were planned from."""
    file.seek(entry.position)
    try:
        record = Record(**json.loads(file.readline()))
    except (ValueError, TypeError):
        raise changed(Path(file.name)) from None
    if (record.id, request_of(job, record)) != (entry.id, entry.request):
        raise changed(Path(file.name))
    return record


def changed(source: Path) -> ValueError:
    return ValueError(f"{source} changed while it was being rewritten; run the same command again")


# ---------------------------------------------------------------- tokens and money


def estimate(messages: Sequence[Message]) -> int:
    """Tokens a prompt usually takes."""
    return math.ceil(sum(len(message["content"]) for message in messages) * DENSITY)


def room(source: str) -> int:
    """Tokens an answer may take at first."""
    return max(ROOM, math.ceil(len(source) * DENSITY * GROWTH) + TITLES)


def bound(messages: Sequence[Message]) -> int:
    """Tokens a prompt can hardly exceed: one for two bytes, and some for the template."""
    return sum(len(message["content"].encode()) for message in messages) // 2 + 32


def expected(job: Job, record: Record) -> Iterator[tuple[str, int, int]]:
    """Model, prompt and completion tokens of the requests a row usually takes."""
    question, answer = context(record), record.answer
    yield job.endpoint.model, estimate(schema.rewrite_messages(question, answer)), EXPECTED
    if job.judge:
        prompt = estimate(schema.fidelity_messages(question, answer, "")) + EXPECTED
        yield job.judge.model, prompt, JUDGED


def price_of(prices: dict[str, Price], model: str, usage: llm.Usage) -> float:
    """Money for tokens; 0 where the recipe names no price."""
    price = prices.get(model, Price())
    return (
        (usage.prompt - usage.cached) * price.input + usage.cached * price.cached_input + usage.completion * price.output
    ) / 1e6


# ---------------------------------------------------------------- judging a reply


def judge_reply(job: Job, question: str, source: str, reply: llm.Reply) -> Verdict:
    """Judge what came back by the rules that need no second model."""
    try:
        return _judged(job, question, source, reply)
    except Exception as error:  # whatever a rule trips over in one odd text, it must not end the run of all the others
        return Verdict("incomplete", f"the check failed: {type(error).__name__}: {error}")


def _judged(job: Job, question: str, source: str, reply: llm.Reply) -> Verdict:
    if reply.verdict == "reject":
        return Verdict("refused", reply.reason)
    if reply.finish == "length":
        return Verdict("cut", "cut: the answer did not end within twice its room")
    if reply.verdict == "retry":
        return Verdict(waiting(reply) or "blank", reply.reason)
    problems = schema.check(reply.text)
    if problems:
        return Verdict("incomplete", f"incomplete: {problems[0]}", [Finding("incomplete", "", problem) for problem in problems])
    return judge_facts(job, faithfulness.check(question, source, finished_text(reply.text)))


def waiting(reply: llm.Reply) -> str:
    """The kind of trouble that gets better by waiting, "" for any other."""
    if reply.verdict != "retry" or reply.usage:
        return ""
    return "busy" if reply.busy else "network"


def judge_facts(job: Job, findings: list[Finding]) -> Verdict:
    if findings and job.settings.on_finding != "flag":
        return Verdict("unfaithful", f"unfaithful: {findings[0].kind}: {findings[0].span or findings[0].message}", findings)
    return Verdict("", findings=findings)


def read_fidelity(text: str) -> list[str] | None:
    """The problems a judge names, ``[]`` for a faithful answer, ``None`` where its reply is not the JSON it was asked for."""
    data = _last_object(text)
    faithful = {"true": True, "false": False}.get(str(data.get("faithful")).lower())
    problems = data.get("problems") or []
    problems = [problems] if isinstance(problems, str) else problems
    if faithful is None or not isinstance(problems, list):
        return None
    return [] if faithful else [str(problem) for problem in problems] or ["判定为不忠实"]


def _last_object(text: str) -> dict[str, Any]:
    """The last JSON object; before it a model may think aloud or repeat the form it was given."""
    found: dict[str, Any] = {}
    at = text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
    return found


def limit(job: Job, kind: str) -> int:
    return 1 if kind == "unfaithful" and job.settings.on_finding == "reject" else LIMITS[kind]


def finished_text(reply: str) -> str:
    """The answer in the form every stage writes; what a model says before the first title is not part of it."""
    return schema.Answer(schema.Answer.parse(reply).sections).render()


def judge_again(job: Job, record: Record, entry: Entry) -> Entry:
    """Judge a stored answer by the rules of today: it may be accepted now, or have to be asked for again.

    What the second model found in it stands: it has not seen the answer again.
    """
    entry = replace(entry, policy=job.policy)
    if entry.finish == "length":
        return entry
    verdict = judge_reply(job, *masked(record), llm.Reply("ok", text=entry.reply, finish=entry.finish))
    judged = [Finding(*found) for found in json.loads(entry.findings) if found[0] == JUDGE]
    if judged and verdict.kind in {"", "unfaithful"}:
        verdict = judge_facts(job, [*verdict.findings, *judged])
    entry = replace(entry, findings=dumps(verdict.findings), reason=verdict.reason)
    if not verdict.kind:
        return replace(entry, state=ACCEPTED)
    exhausted = entry.state == REJECTED and entry.attempts >= limit(job, verdict.kind)
    return replace(entry, state=REJECTED if exhausted or limit(job, verdict.kind) == 1 else PENDING)


def dumps(findings: Sequence[Finding]) -> str:
    return json.dumps([[finding.kind, finding.span, finding.message] for finding in findings], ensure_ascii=False)
