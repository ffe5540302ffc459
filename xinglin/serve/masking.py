"""Personal data taken out of the user's turns before the model, or the server behind this one, sees them.

In: a checked ``Ask``. Out: the same with masked turns, and what the page shows about it, by turn of the user::

    {"turn": 0, "kinds": ["name"], "text": "我叫[姓名1]，胃疼两周了"}
"""

import asyncio
from dataclasses import replace

from xinglin.safety.pii import mask
from xinglin.serve.protocol import Ask

BETWEEN = "\n\ud800\n"  # half a surrogate pair: no request holds one (``protocol.decode``)


async def masked(ask: Ask) -> Ask:
    """``ask`` as the model gets it. In a thread: a long text must not hold up others."""
    return await asyncio.to_thread(_masked, ask)


def _masked(ask: Ask) -> Ask:
    """All turns are masked together, so that one person keeps one number."""
    questions = ask.questions
    whole = mask(BETWEEN.join(questions))
    sent, start, told = whole.text.split(BETWEEN), 0, []
    for turn, (question, text) in enumerate(zip(questions, sent, strict=True)):
        end = start + len(question)
        kinds = list(dict.fromkeys(kind for begin, _, kind in whole.spans if start <= begin < end))
        if kinds:
            told.append({"turn": turn, "kinds": kinds, "text": text})
        start = end + len(BETWEEN)
    rest = iter(sent)
    messages = [turn | {"content": next(rest)} if turn["role"] == "user" else turn for turn in ask.messages]
    return replace(ask, messages=messages, masked=told)
