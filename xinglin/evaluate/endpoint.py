"""Many dialogues to one OpenAI-compatible endpoint: a side of a comparison, or the judge.

In: an ``llm.Endpoint`` and dialogues. Out: one ``llm.Reply`` each, in order; what may go better later was asked again.
"""

import asyncio
from collections.abc import Sequence

from xinglin import llm
from xinglin.evaluate.answers import Result
from xinglin.schema import Message

AT_ONCE = 8
TRIES = 4


def ask(endpoint: llm.Endpoint, batch: Sequence[list[Message]], max_tokens: int, pause: float = 2.0) -> list[llm.Reply]:
    """Replies in order. Raises ``ValueError`` where no request can succeed (wrong key, no such model, no balance)."""
    return asyncio.run(_ask(endpoint, batch, max_tokens, pause))


async def _ask(endpoint: llm.Endpoint, batch: Sequence[list[Message]], max_tokens: int, pause: float) -> list[llm.Reply]:
    gate = asyncio.Semaphore(AT_ONCE)
    async with llm.client(endpoint, AT_ONCE) as http:

        async def one(messages: list[Message]) -> llm.Reply:
            async with gate:
                for attempt in range(TRIES):
                    reply = await llm.chat(http, endpoint, messages, max_tokens)
                    if reply.verdict != "retry" or attempt == TRIES - 1:
                        break
                    await asyncio.sleep(max(reply.retry_after, pause * 2**attempt))
            if reply.verdict == "stop":
                raise ValueError(reply.reason)
            return reply

        return list(await asyncio.gather(*map(one, batch)))


def answer(endpoint: llm.Endpoint, batch: Sequence[list[Message]], max_new_tokens: int) -> list[Result]:
    """Answers of a side. Raises ``ValueError`` where one did not come: a gap would be counted as a bad answer."""
    replies = ask(endpoint, batch, max_new_tokens)
    failed = [reply.reason for reply in replies if reply.verdict != "ok"]
    if failed:
        raise ValueError(
            f"{endpoint.base_url}: {len(failed)} of {len(batch)} answers did not come ({failed[0]}); run again to go on"
        )
    return [_result(reply) for reply in replies]


def _result(reply: llm.Reply) -> Result:
    usage = reply.usage or llm.Usage()
    counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}
    return {"text": reply.text, "finish_reason": "stop" if reply.finish == "stop" else "length", **counts}
