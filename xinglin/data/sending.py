"""Sending: many rows in flight at once, each retried by its own rules until it ends in one state.

In: the unfinished rows of a journal. Out: the same rows in the journal, finished; ``Sender.stopped`` says why some are not:
"https://api.example.com/v1 answers 402: the balance is used up …" or "budget of 5 reached".
"""

import asyncio
import json
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from xinglin import llm, schema
from xinglin.data import rewrite_job as rules
from xinglin.data import rewrite_progress as progress
from xinglin.data.journal import ACCEPTED, FAILED, PENDING, REJECTED, Entry, Journal, Summary
from xinglin.data.pacing import PAUSE, Pace, Purse
from xinglin.data.rewrite_job import Job, Verdict
from xinglin.records import Record
from xinglin.safety.faithfulness import Finding
from xinglin.schema import Message

BACKOFF = 1.0  # seconds before the second try; doubles, with jitter, up to LONGEST
LONGEST = 60.0
SPARE = 1.1  # workers for each request that may be in flight
INTERRUPTED = "interrupted"
UNCLEAR = 3  # answers of the judge that are no verdict before the row goes on without one
STREAK = 20  # rows that fail one after the other before the run stops


@dataclass(frozen=True)
class Task:
    record: Record
    entry: Entry
    question: str
    source: str


class Sender:
    """One run. ``done`` counts the rows it finished by state, ``finished`` holds the times of the latest.

    ``asking`` counts the requests that wait for their answer; ``trouble`` is what the latest was repeated or rejected for.
    """

    def __init__(self, job: Job, journal: Journal, source: Path, found: Summary) -> None:
        self.job, self.journal, self.source, self.todo = job, journal, source, found.unfinished
        settings = job.settings
        self._halt = asyncio.Event()
        self.pace = Pace(settings.concurrency, settings.requests_per_minute, settings.tokens_per_minute, self._halt)
        self.purse = Purse(settings.budget, found.price + found.lost_price)
        self.stopped = self.trouble = ""
        self.asking = 0
        self.done: Counter[str] = Counter()
        self.finished: deque[float] = deque(maxlen=10_000)
        self._streak = self.answers = 0
        self._held: list[Entry] = []
        self._judging = asyncio.Lock()

    async def work(self) -> None:
        """Workers share one stream of rows; none waits for another. More than may be in flight: some have an answer to judge or
        wait for the disk."""
        tasks = self._tasks()
        workers = min(int(self.job.settings.concurrency * SPARE), self.todo)
        showing = asyncio.create_task(progress.show(self))
        try:
            async with llm.client(self.job.endpoint, workers) as http:
                await _all([asyncio.create_task(self._worker(http, tasks)) for _ in range(workers)])
        finally:
            showing.cancel()
        await self._release()

    def stop(self, reason: str) -> None:
        """Send nothing more; what is in flight is still waited for, it is paid."""
        self.stopped = self.stopped or reason
        self._halt.set()

    def interrupt(self) -> None:
        """The first time, let what is in flight come in; the second time Python's own handler ends the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        progress.say(f"interrupted: waiting for {self.asking} answers that are already paid for; once more to leave at once")
        self.stop(INTERRUPTED)

    def _tasks(self) -> Iterator[Task]:
        with open(self.source, "rb") as file:
            for entry in self.journal.unfinished():
                record = rules.read(self.job, file, entry)
                yield Task(record, entry, *rules.masked(record))

    async def _worker(self, http: aiohttp.ClientSession, tasks: Iterator[Task]) -> None:
        while not self._halt.is_set() and (task := next(tasks, None)):
            await self._row(http, task)

    async def _row(self, http: aiohttp.ClientSession, task: Task) -> None:
        """Ask until the answer is accepted or one kind of trouble has met its limit."""
        entry, met, told = task.entry, Counter[str](), list[str]()
        while True:
            messages = schema.rewrite_messages(task.question, task.source, told)
            room = rules.room(task.source) * (2 if met["cut"] else 1)
            warm = bool(met["blank"] + met["incomplete"] + met["unfaithful"])
            reply, entry = await self._ask(http, self.job.endpoint, messages, room, entry, warm)
            if reply is None:
                return None
            verdict = await self._judge(task, reply)
            if not verdict.kind and self.job.judge:
                judged, entry = await self._second_opinion(http, task, reply.text, verdict, entry, met)
                if judged is None:
                    return await self.journal.put(replace(_noted(entry, self.job, reply, verdict), state=PENDING))
                verdict = judged
            entry = _noted(entry, self.job, reply, verdict)
            if not verdict.kind:
                return await self._finish(replace(entry, state=ACCEPTED))
            met[verdict.kind] += 1
            self.trouble = verdict.reason
            told = [finding.message for finding in verdict.findings] or told
            if met[verdict.kind] >= rules.limit(self.job, verdict.kind):
                return await self._finish(replace(entry, state=rules.ENDS[verdict.kind]))
            if reply.usage or _unknown(reply):
                await self.journal.put(entry)
            await self._pause(verdict.kind, met[verdict.kind], reply)
            if self._halt.is_set():
                return None

    async def _judge(self, task: Task, reply: llm.Reply) -> Verdict:
        """One answer between two looks at the network: the next request does not wait until all answers are judged."""
        async with self._judging:
            await asyncio.sleep(0)
            return rules.judge_reply(self.job, task.question, task.source, reply)

    async def _finish(self, entry: Entry) -> None:
        """Refused rows are held back until another outcome shows that the fault is theirs, not the endpoint's."""
        refused = entry.reason.startswith("HTTP")
        self._streak = self._streak + 1 if refused or entry.state == FAILED else 0
        if self._streak >= STREAK:
            self.stop(f"{self._streak} rows in a row failed, the last one with: {entry.reason}")
        if not self._streak:
            await self._release()
        if refused and entry.state == REJECTED:
            self._held.append(entry)
        else:
            await self._put(entry)

    async def _release(self) -> None:
        """Write what was held back: as it is, or to be asked again where the run was stopped."""
        held, self._held = self._held, []
        await asyncio.gather(*(self._put(replace(entry, state=FAILED) if self.stopped else entry) for entry in held))

    async def _put(self, entry: Entry) -> None:
        await self.journal.put(entry)
        self.done[entry.state] += 1
        self.finished.append(time.monotonic())

    async def _pause(self, kind: str, times: int, reply: llm.Reply) -> None:
        """Wait before the next try: only trouble of the network or the endpoint gets better by waiting."""
        if kind not in {"network", "busy"}:
            return
        seconds = max(min(reply.retry_after, PAUSE), min(LONGEST, BACKOFF * 2 ** (times - 1)) * random.uniform(0.5, 1.5))
        try:
            await asyncio.wait_for(self._halt.wait(), seconds)
        except TimeoutError:
            return

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        endpoint: llm.Endpoint,
        messages: list[Message],
        room: int,
        entry: Entry,
        warm: bool = False,
    ) -> tuple[llm.Reply | None, Entry]:
        """Send one request within all limits and book it; ``None`` where the run stops before it is sent or because of it."""
        prices = self.job.settings.prices
        most = rules.price_of(prices, endpoint.model, llm.Usage(rules.bound(messages), 0, room))
        expected = rules.estimate(messages) + rules.EXPECTED
        await self.pace.enter(expected)
        reply = llm.Reply("retry", unreached=True)
        reserved = not self._halt.is_set() and await self.purse.reserve(most)
        if reserved and not self._halt.is_set():
            self.asking += 1
            reply = await llm.chat(http, endpoint, messages, room, 0.5 if warm else 0.0)
            self.asking -= 1
        usage = reply.usage or llm.Usage()
        self.pace.leave(reply, expected, usage.prompt + usage.completion)
        if not reserved:
            spent = f"{self.purse.spent:.4f} spent, the next request may cost {most:.4f}"
            self.stop(f"rewrite.budget={self.purse.budget:g}: {spent}; raise it to go on")
            return None, entry
        price, lost = rules.price_of(prices, endpoint.model, usage), most if _unknown(reply) else 0.0
        await self.purse.settle(most, price + lost)
        return self._checked(reply), _booked(entry, usage, price, lost, reply)

    def _checked(self, reply: llm.Reply) -> llm.Reply | None:
        """Stop the run on what no further request can mend."""
        if reply.verdict == "stop":
            self.stop(reply.reason)
        elif not reply.unreached:
            self.answers += 1
        elif not self.answers and reply.reason:
            self._streak += 1
            if self._streak >= 3:
                self.stop(f"{reply.reason}: check rewrite.base_url and that the server runs")
        return None if reply.verdict == "stop" or (self._halt.is_set() and reply.unreached) else reply

    async def _second_opinion(
        self, http: aiohttp.ClientSession, task: Task, text: str, verdict: Verdict, entry: Entry, met: Counter[str]
    ) -> tuple[Verdict | None, Entry]:
        """Ask the judge; ``None`` where the run stops first. After ``UNCLEAR`` answers that are no verdict the row says so;
        trouble of the network or the endpoint counts with that of the row, in ``met``."""
        assert self.job.judge
        messages = schema.fidelity_messages(task.question, task.source, rules.finished_text(text))
        unclear = 0
        while unclear < UNCLEAR:
            reply, entry = await self._ask(http, self.job.judge, messages, 512, entry, warm=unclear > 0)
            if reply is None:
                return None, entry
            problems = rules.read_fidelity(reply.text) if reply.verdict == "ok" else None
            if problems is not None:
                findings = [Finding(rules.JUDGE, "", problem) for problem in problems]
                entry = replace(entry, judge="unfaithful" if findings else "faithful")
                return rules.judge_facts(self.job, [*verdict.findings, *findings]), entry
            kind = rules.waiting(reply)
            unclear += not kind
            if kind and met[kind] + 1 >= rules.LIMITS[kind]:
                return Verdict(kind, f"judge: {reply.reason}"), entry
            if kind:
                met[kind] += 1
                self.trouble = f"judge: {reply.reason}"
                await self.journal.put(entry)
                await self._pause(kind, met[kind], reply)
            if self._halt.is_set():
                return None, entry
        return verdict, replace(entry, judge="no verdict")


async def _all(workers: list[asyncio.Task[None]]) -> None:
    """Wait for all; when one fails, end the others before their connections are closed."""
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise


def _unknown(reply: llm.Reply) -> bool:
    """Whether nobody says what the request cost: the answer got lost, or came without counts."""
    counted = reply.usage is not None and reply.usage.prompt + reply.usage.completion > 0
    return reply.lost or reply.uncounted or (reply.verdict == "ok" and not counted)


def _booked(entry: Entry, usage: llm.Usage, price: float, lost: float, reply: llm.Reply) -> Entry:
    return replace(
        entry,
        attempts=entry.attempts + (not reply.unreached),
        prompt_tokens=entry.prompt_tokens + usage.prompt,
        cached_tokens=entry.cached_tokens + usage.cached,
        completion_tokens=entry.completion_tokens + usage.completion,
        price=entry.price + price,
        lost_price=entry.lost_price + lost,
        updated=time.time(),
    )


def _noted(entry: Entry, job: Job, reply: llm.Reply, verdict: Verdict) -> Entry:
    """What is known of a row after an attempt; the reasons for trying again add up."""
    retries = [*json.loads(entry.retries), verdict.reason] if verdict.kind else json.loads(entry.retries)
    return replace(
        entry,
        reason=verdict.reason,
        finish=reply.finish,
        seconds=round(reply.seconds, 3),
        reply=reply.text,
        policy=job.policy,
        findings=rules.dumps(verdict.findings),
        retries=json.dumps(retries, ensure_ascii=False),
    )
