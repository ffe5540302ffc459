"""The engine's parts of bench/serve.py: what writing together gains, whether the form holds, what the form costs.

ratio       16 questions at once through the API against the same ones by `generate` one after the other: tokens per CPU second
structure   500 questions to a model with random weights: answers that are complete and ended by themselves
constraint  milliseconds a step at Qwen's vocabulary (151,936 scores), against llguidance's mask of the same form
together    64 clients on the built-in model: errors, answers that are those of another question, answers that differ from alone
"""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

CLIENTS = 16
STREAMS = 64
QUESTIONS = 500
TOKENS = 100
VOCABULARY = 151_936
QWEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "qwen2.5-tokenizer"
ADVICE = {
    "type": "object",
    "properties": {"department": {"type": "string"}, "days": {"type": "integer"}, "urgent": {"type": "boolean"}},
    "required": ["department", "days", "urgent"],
    "additionalProperties": False,
}


def questions(count: int) -> list[str]:
    """As many different questions, of different lengths."""
    generator = random.Random(0)
    where = ["胃", "头", "膝盖", "后背", "喉咙", "耳朵", "右下腹", "脚踝"]
    how = ["隐隐作痛", "一阵阵地疼", "发胀", "发麻", "又红又肿", "痒得睡不着"]
    more = ["吃过饭更明显", "晚上加重", "歇一会儿会好些", "以前没有过", "家里老人也这样", "最近加班多"]
    texts = []
    for number in range(count):
        rest = "，".join(generator.sample(more, generator.randint(0, 4)))
        texts.append(f"{generator.choice(where)}{generator.choice(how)}{number % 30 + 1}天了，{rest}，怎么办？（{number}）")
    return texts


def built_in() -> Any:
    import torch

    from xinglin.config import DEMO
    from xinglin.engine import Engine

    torch.set_num_threads(1)  # waiting threads burn CPU time that is no work
    engine = Engine.load(str(DEMO / "base"))
    engine.name = "demo"
    return engine


# ---------------------------------------------------------------- ratio


async def ratio(folder: str) -> dict[str, Any]:
    from xinglin import schema

    engine = built_in()
    asked = questions(CLIENTS)
    alone = _rate(lambda: _one_by_one(engine, asked))
    result: dict[str, Any] = {
        "clients": CLIENTS,
        "longest_answer_tokens": TOKENS,
        "one_by_one_tokens_per_cpu_second": round(alone, 1),
    }
    fixed = _rate(lambda: _one_batch(engine, asked))
    result["generate_on_one_fixed_batch"] = {"tokens_per_cpu_second": round(fixed, 1), "ratio": round(fixed / alone, 2)}
    for structure in ("enforced", "free"):
        engine.__dict__.pop("_batcher", None)  # nothing remembered from an earlier run
        rate, complete = await _served(engine, asked, structure, folder)
        result[structure] = {"tokens_per_cpu_second": round(rate, 1), "ratio": round(rate / alone, 2), "complete": complete}
        assert structure == "free" or complete == CLIENTS, schema.TITLES
    return result


def _rate(work: Callable[[], int]) -> float:
    """Tokens per CPU second, the better of two runs: the first pays for warming up."""
    rates = []
    for _ in range(2):
        began = time.process_time()
        tokens = work()
        rates.append(tokens / (time.process_time() - began))
    return max(rates)


def _one_by_one(engine: Any, asked: list[str]) -> int:
    from xinglin import schema

    return sum(engine.complete([schema.messages(text)], max_new_tokens=TOKENS)[0].completion_tokens for text in asked)


def _one_batch(engine: Any, asked: list[str]) -> int:
    from xinglin import schema

    return sum(reply.completion_tokens for reply in engine.complete(list(map(schema.messages, asked)), max_new_tokens=TOKENS))


async def _served(engine: Any, asked: list[str], structure: str, folder: str) -> tuple[float, int]:
    """(tokens per CPU second, complete answers) of all questions at once through the API, in this process."""
    from xinglin.serve.answering import Server
    from xinglin.serve.api import create_app
    from xinglin.serve.backend import Local

    app = create_app(Server("demo", Path(folder), Local(engine, "tuned"), structure=structure))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=None) as client:
        began = time.process_time()
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=_body(text)) for text in asked))
        spent = time.process_time() - began
    values = [answer.json() for answer in answers]
    return sum(v["usage"]["completion_tokens"] for v in values) / spent, sum(v["xinglin"]["complete"] for v in values)


def _body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, **more}


# ---------------------------------------------------------------- structure


async def structure(folder: str) -> dict[str, Any]:
    from xinglin import schema

    engine = _random_weights()
    limits = [110, 160, 256, 512]
    problems: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    began = time.process_time()
    asked = questions(QUESTIONS)
    for start in range(0, QUESTIONS, STREAMS):
        streams = [
            engine.stream(
                schema.messages(text),
                sections=True,
                max_new_tokens=limits[number % 4],
                temperature=(0.0, 1.0)[number // 4 % 2],
                seed=number,
            )
            for number, text in enumerate(asked[start : start + STREAMS], start)
        ]
        for stream in streams:
            problems.update(schema.check("".join(stream)) or ["none"])
            reasons[stream.reply.finish_reason] += 1
    return {
        "questions": QUESTIONS,
        "limits": limits,
        "complete": problems["none"],
        "problems": {name: count for name, count in problems.items() if name != "none"},
        "finish_reasons": dict(reasons),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _random_weights() -> Any:
    import torch
    from transformers import Qwen2ForCausalLM

    from xinglin.engine import Engine

    engine = built_in()
    torch.manual_seed(1)
    return Engine(Qwen2ForCausalLM(engine.model.config), engine.tokenizer, "random")


# ---------------------------------------------------------------- constraint


async def constraint(folder: str) -> dict[str, Any]:
    if not QWEN.is_dir():
        return {"skipped": f"needs {QWEN.name} in shared/data beside the repository"}
    from xinglin import engine, schema
    from xinglin.structure import Codec, Grammar, Sections, vocabulary

    tokenizer = engine.load_tokenizer(QWEN)
    codec = Codec(tokenizer)
    began = time.process_time()
    view = vocabulary(tokenizer, VOCABULARY)
    built = time.process_time() - began
    text = schema.pattern(60)
    return {
        "scores": VOCABULARY,
        "sections": _steps(lambda: Sections(codec, 420), codec, 1200),
        "json_schema": _steps(lambda: Grammar(view, json.dumps(ADVICE)), codec, 300),
        "llguidance_mask_of_the_same_form": _masks(view, text, 400),
        "json_schema_first_use_cpu_seconds": round(built, 2),
    }


def _steps(make: Callable[[], Any], codec: Any, count: int) -> dict[str, Any]:
    """CPU time of a guide beyond the sampling of one token, with scores of a model that knows nothing."""
    import torch

    from xinglin.structure import Written

    torch.set_num_threads(1)
    torch.manual_seed(0)
    times: list[float] = []
    while len(times) < count:
        guide, written, finished = make(), Written(codec), False
        guide.start(written)
        while not finished and len(written.ids) < 420:
            scores = torch.randn(VOCABULARY)
            token = int(scores.argmax())
            began = time.process_time()
            while not guide.allows(written, token):
                scores[token] = -torch.inf
                guide.narrow(scores)
                token = int(scores.argmax())
            finished = guide.take(written, token)
            guide.shown(written)
            times.append(time.process_time() - began)
    return _milliseconds(times)


def _masks(view: Any, pattern: str, count: int) -> dict[str, Any]:
    """CPU time of a mask over all scores and of applying it: the usual way."""
    import torch
    from llguidance import LLMatcher

    torch.manual_seed(0)
    times: list[float] = []
    while len(times) < count:
        matcher = LLMatcher(view, LLMatcher.grammar_from_regex(pattern))
        while not matcher.is_stopped() and len(times) < count:
            scores = torch.randn(VOCABULARY)
            began = time.process_time()
            allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)
            scores[allowed == 0] = -torch.inf
            times.append(time.process_time() - began)
            matcher.consume_token(int(scores.argmax()))
    return _milliseconds(times)


def _milliseconds(times: list[float]) -> dict[str, Any]:
    ordered = sorted(1000 * seconds for seconds in times)
    shares = {"median": 0.5, "p99": 0.99}
    found = {f"{name}_ms": round(ordered[int(len(ordered) * share)], 3) for name, share in shares.items()}
    return {"steps": len(times), "mean_ms": round(statistics.mean(ordered), 3), **found}


# ---------------------------------------------------------------- together


async def together(url: str, seconds: float) -> dict[str, Any]:
    """Against a server of the built-in model at ``url``: what 64 clients get, beside what each question got alone."""
    asked = questions(40)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as client:
        alone = [await _answer(client, text) for text in asked]
        end = time.monotonic() + seconds
        talks = await asyncio.gather(*(_talk(client, asked, end, random.Random(number)) for number in range(STREAMS)))
    outcomes: Counter[str] = Counter()
    for number, text, problem in (each for talk in talks for each in talk):
        same = text == alone[number][0]
        mixed = not same and any(text == other for other, _ in alone)
        outcomes[problem or ("same" if same else "mixed" if mixed else "differs")] += 1
    known = ("same", "mixed", "differs")
    return {
        "streams": STREAMS,
        "seconds": seconds,
        "answers": sum(outcomes.values()),
        "errors": {name: count for name, count in outcomes.items() if name not in known},
        "cross_talk": outcomes["mixed"],
        "as_when_asked_alone": outcomes["same"],
        "differ_from_alone": outcomes["differs"],
    }


async def _talk(client: httpx.AsyncClient, asked: list[str], end: float, generator: random.Random) -> list[tuple[int, str, str]]:
    results = []
    while time.monotonic() < end:
        number = generator.randrange(len(asked))
        results.append((number, *await _answer(client, asked[number])))
    return results


async def _answer(client: httpx.AsyncClient, text: str) -> tuple[str, str]:
    """(the answer, what went wrong or "")."""
    said, problem = "", "no end"
    try:
        async with client.stream("POST", "/v1/chat/completions", json=_body(text, stream=True, max_tokens=120)) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    value = json.loads(line[6:])
                    said += "".join(choice["delta"].get("content") or "" for choice in value["choices"])
                    problem = "" if value["choices"][0]["finish_reason"] == "stop" else problem
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return said, type(error).__name__
    return said, problem
