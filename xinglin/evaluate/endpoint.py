"""Many dialogues to one OpenAI-compatible endpoint: a side of a comparison, or the judge.

In: an ``llm.Endpoint`` and dialogues. Out: one result each, in order; what may go better later was asked again::

    {"text": "一、…", "finish_reason": "stop", "prompt_tokens": 61, "completion_tokens": 311}
    {"missing": "HTTP 400: context length exceeded"}      this dialogue got no answer
    {"stop": "https://… answers 402: the balance is used up"}      no dialogue can get one
"""

import asyncio
from collections.abc import Sequence

from xinglin import llm
from xinglin.evaluate.answers import Result
from xinglin.schema import Message

AT_ONCE = 8
TRIES = 4
PAUSE = 2.0  # seconds before the second try, twice as many before each further one


def answer(endpoint: llm.Endpoint, batch: Sequence[list[Message]], max_tokens: int) -> list[Result]:
    """Results in order."""
    replies = asyncio.run(_ask(endpoint, batch, max_tokens))
    if all(reply.busy or reply.lost or reply.unreached for reply in replies):
        stop = f"{endpoint.base_url}: none of {len(batch)} answers came ({replies[0].reason}); run again to go on"
        return [{"stop": stop}] * len(batch)
    return [_result(reply) for reply in replies]


async def _ask(endpoint: llm.Endpoint, batch: Sequence[list[Message]], max_tokens: int) -> list[llm.Reply]:
    gate = asyncio.Semaphore(AT_ONCE)
    async with llm.client(endpoint, AT_ONCE) as http:

        async def one(messages: list[Message]) -> llm.Reply:
            async with gate:
                for attempt in range(TRIES):
                    reply = await llm.chat(http, endpoint, messages, max_tokens)
                    if reply.verdict != "retry" or attempt == TRIES - 1:
                        break
                    await asyncio.sleep(max(reply.retry_after, PAUSE * 2**attempt))
            return reply

        return list(await asyncio.gather(*map(one, batch)))


def _result(reply: llm.Reply) -> Result:
    if reply.verdict != "ok":
        return {"stop" if reply.verdict == "stop" else "missing": reply.reason}
    usage = reply.usage or llm.Usage()
    counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}
    return {"text": reply.text, "finish_reason": "stop" if reply.finish == "stop" else "length", **counts}
