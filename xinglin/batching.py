"""Many answers at once on one model: a loop that steps every running answer together and lets new ones in between two steps.

In: ``Job`` (prompt, settings, guide). Out: its pieces and its ``Reply``, posted from the loop's thread. Base and tuned share the
weights, not a step: each has a ``Lane`` with keys and values of its own, and the lanes take turns::

    step of a lane      row 0  … 胃 炎 ▸ 。      every row has a length of its own; a row that ends is replaced by the last one,
                        row 1  … 就 ▸ 诊        and a new prompt starts from the longest beginning it shares with any row, so the
                        row 2  [prompt, ≤ 256]  system text is read once
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch

from xinglin.generation import ROWS, Post, Reply, Settings
from xinglin.structure import Guide, Stuck, Written

CELLS = 65_536  # tokens whose keys and values are held, both lanes together; a longer prompt has fewer neighbours
CHUNK = 256  # tokens of one prompt read between two steps of the others; of all prompts, twice as many
COLDEST = 1e-4  # temperatures below are greedy: scores divided by them overflow
BLOCK = 128  # columns by which a lane grows


@dataclass(eq=False)
class Job:
    """One answer from prompt to end; ``read``: how many of its tokens the lane has keys and values of."""

    prompt: list[int]
    settings: Settings
    guide: Guide
    written: Written
    post: Post
    device: torch.device
    submit: "Callable[[Job], None]"
    cancelled: bool = False
    read: int = 0
    sent: int = 0
    todo: list[int] = field(default_factory=list)
    random: torch.Generator | None = None

    def __post_init__(self) -> None:
        self.guide.start(self.written)
        self.todo = self.prompt + self.written.ids
        self.written.low = len(self.written.ids)
        if self.settings.temperature >= COLDEST:
            self.random = torch.Generator(self.device)
            self.random.manual_seed(torch.seed() if self.settings.seed is None else self.settings.seed)

    @property
    def width(self) -> int:
        """Columns the job may come to need."""
        return len(self.prompt) + self.settings.max_new_tokens

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.written.ids

    def start(self) -> None:
        self.submit(self)

    def cancel(self) -> None:
        self.cancelled = True

    def step(self, scores: torch.Tensor, best: int) -> str:
        """Write the next token; ``best`` is the place of the highest of ``scores``.

        Returns why the answer is finished, "" while it is not. Raises ``Stuck`` where no token is left to write.
        """
        written, token = self.written, best
        if self.random:
            token = self._sample(scores)
        while not self.guide.allows(written, token):
            scores[token] = -torch.inf
            self.guide.narrow(scores)
            if not scores.max().isfinite():
                raise Stuck("no token is allowed here")
            token = self._sample(scores) if self.random else int(scores.argmax())
        written.low = known = len(written.ids)
        finished = self.guide.take(written, token)
        self.read -= known - written.low
        self.todo = written.ids[written.low :]
        if finished or self._stopped():
            return "stop"
        return "length" if len(written.ids) >= self.settings.max_new_tokens else ""

    def _sample(self, scores: torch.Tensor) -> int:
        shares = (scores / self.settings.temperature).softmax(-1)
        if self.settings.top_p < 1:
            ordered, order = shares.sort(descending=True)
            shares[order[ordered.cumsum(0) - ordered >= self.settings.top_p]] = 0
        # The token whose share divided by an exponential draw is largest is a sample by the shares.
        draws = torch.empty_like(shares).exponential_(generator=self.random)
        return int((shares / draws).argmax())

    def _stopped(self) -> bool:
        """Cut the text at the first stop text."""
        text = self.written.text
        found = [at for stop in self.settings.stop if (at := text.find(stop, max(0, self.sent - len(stop)))) >= 0]
        if found:
            self.written.text = text[: min(found)]
        return bool(found)

    def tell(self) -> None:
        """Post what is certain to stay."""
        held = max((len(stop) for stop in self.settings.stop), default=1) - 1
        self._post_until(min(self.guide.shown(self.written), len(self.written.text) - held))

    def end(self, reason: str) -> None:
        self._post_until(len(self.written.text))
        self.post(Reply(self.written.text, reason, len(self.prompt), len(self.written.ids)))

    def _post_until(self, end: int) -> None:
        if end > self.sent:
            self.post(self.written.text[self.sent : end])
            self.sent = end


class KeyValues:
    """Keys and values of a lane, two tensors (rows, heads, columns, size) a layer; the attention layers call ``update``."""

    def __init__(self) -> None:
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.shape = (0, 0)
        self.rows = self.positions = torch.empty(0, dtype=torch.long)
        self.chosen: slice | torch.Tensor = slice(0)
        self.width = 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if layer == len(self.layers):
            shape = (self.shape[0], keys.shape[1], self.shape[1], keys.shape[3])
            self.layers.append((keys.new_zeros(shape), values.new_zeros(shape)))
        held, held_values = self.layers[layer]
        held[self.rows, :, self.positions] = keys.transpose(1, 2)
        held_values[self.rows, :, self.positions] = values.transpose(1, 2)
        return held[self.chosen, :, : self.width], held_values[self.chosen, :, : self.width]

    def choose(self, rows: list[int], positions: torch.Tensor, width: int) -> None:
        """Set what the next pass reads and writes: (row, position) of its tokens, and the columns it looks at."""
        self.rows = torch.tensor(rows, device=positions.device)[:, None]
        self.positions, self.width = positions, width
        adjacent = rows == list(range(rows[0], rows[0] + len(rows)))
        self.chosen = slice(rows[0], rows[0] + len(rows)) if adjacent else self.rows[:, 0]

    def copy(self, source: int, target: int, columns: int) -> None:
        if source != target:
            for pair in self.layers:
                for held in pair:
                    held[target, :, :columns] = held[source, :, :columns]

    def hold(self, rows: int, columns: int, limit: int) -> None:
        """Make room for at least ``rows`` by ``columns``, layer after layer, for more only within ``limit`` cells."""
        if rows <= self.shape[0] and columns <= self.shape[1]:
            return
        columns = max(self.shape[1], -(-columns // BLOCK) * BLOCK)
        rows = max(rows, self.shape[0] if self.shape[0] * columns <= limit else 0)
        kept = (min(rows, self.shape[0]), min(columns, self.shape[1]))
        self.shape = (rows, columns)
        for index, pair in enumerate(self.layers):
            grown = [held.new_zeros(rows, held.shape[1], columns, held.shape[3]) for held in pair]
            for new, held in zip(grown, pair, strict=True):
                new[: kept[0], :, : kept[1]] = held[: kept[0], :, : kept[1]]
            self.layers[index] = (grown[0], grown[1])


class Lane:
    """The running and waiting answers of one side. Rows 0 to n - 1 of the keys and values are those of ``jobs``."""

    def __init__(self, causal: Any, limit: int) -> None:
        self.causal = causal
        self.limit = limit
        self.inbox: SimpleQueue[Job] = SimpleQueue()
        self.waiting: deque[Job] = deque()
        self.jobs: list[Job] = []
        self.held: list[list[int]] = []  # the tokens whose keys and values each row holds, ended rows too
        self.cache = KeyValues()

    @property
    def busy(self) -> bool:
        return bool(self.jobs or self.waiting or not self.inbox.empty())

    def fail(self, error: Exception) -> None:
        """End everything with ``error`` and let go of the memory."""
        self._receive()
        for job in (*self.jobs, *self.waiting):
            job.post(error)
        self.waiting.clear()
        self.jobs, self.held, self.cache = [], [], KeyValues()

    def step(self) -> None:
        self._receive()
        self._remove_cancelled()
        self._admit()
        prompts = [row for row, job in enumerate(self.jobs) if job.read < len(job.prompt)]
        others = [row for row, job in enumerate(self.jobs) if job.read >= len(job.prompt)]
        if others:
            self._forward(others, 1)
        room = 2 * CHUNK
        for row in prompts:
            if room > 0:
                room -= len(self.jobs[row].todo[:CHUNK])
                self._forward([row], CHUNK)
        for row in reversed(range(len(self.jobs))):
            if not self.jobs[row].todo:
                self._remove(row)

    def _receive(self) -> None:
        while not self.inbox.empty():
            self.waiting.append(self.inbox.get())

    def _remove_cancelled(self) -> None:
        for job in [job for job in self.waiting if job.cancelled]:
            self.waiting.remove(job)
            job.end("cancelled")
        for row in reversed(range(len(self.jobs))):
            if self.jobs[row].cancelled:
                self.jobs[row].end("cancelled")
                self._remove(row)

    def _remove(self, row: int) -> None:
        """The last row moves into the gap; what the row held stays where it was, for prompts that begin alike."""
        last = len(self.jobs) - 1
        self.held[row] = self.jobs[row].tokens[: self.jobs[row].read]
        if row != last:
            self.cache.copy(last, row, self.jobs[last].read)
            self.held[row] = self.held[last] = self.jobs[last].tokens[: self.jobs[last].read]
        self.jobs[row] = self.jobs[last]
        self.jobs.pop()

    def _admit(self) -> None:
        while self.waiting and self._fits(self.waiting[0]):
            job, row = self.waiting.popleft(), len(self.jobs)
            self._hold(row + 1, len(job.prompt) + BLOCK)
            source, job.read = self._longest_beginning(job.prompt)
            job.todo = job.todo[job.read :]
            self.cache.copy(source, row, job.read)
            self.held[row : row + 1] = [[]]
            self.jobs.append(job)

    def _hold(self, rows: int, columns: int) -> None:
        self.cache.hold(rows, columns, self.limit)
        del self.held[self.cache.shape[0] :]

    def _fits(self, job: Job) -> bool:
        rows = len(self.jobs) + 1
        width = max(other.width for other in (*self.jobs, job))
        return rows == 1 or (rows <= ROWS and rows * width <= self.limit)

    def _longest_beginning(self, prompt: list[int]) -> tuple[int, int]:
        """(row, tokens) of the row that begins like ``prompt`` for longest; at least its last token is to be read anew."""
        rows = [job.tokens[: job.read] for job in self.jobs] + self.held[len(self.jobs) :]
        common = [_common(held, prompt[:-1]) for held in rows]
        best = max(common, default=0)
        return (common.index(best), best) if best else (len(self.jobs), 0)

    def _forward(self, rows: list[int], most: int) -> None:
        """Read up to ``most`` tokens of each row, and let those write that have read all they have."""
        jobs = [self.jobs[row] for row in rows]
        chunks = [job.todo[:most] for job in jobs]
        length = max(map(len, chunks))
        reads = [job.read for job in jobs]
        self._hold(len(self.jobs), max(reads) + length)
        device = jobs[0].device
        # Short chunks are filled up on the right; what that writes is overwritten before anything looks at it.
        ids = torch.tensor([chunk + [0] * (length - len(chunk)) for chunk in chunks], device=device)
        positions = torch.tensor(reads, device=device)[:, None] + torch.arange(length, device=device)
        width = max(read + len(chunk) for read, chunk in zip(reads, chunks, strict=True))
        mask = torch.arange(width, device=device) <= positions[:, None, :, None]
        self.cache.choose(rows, positions, width)
        hidden = self.causal.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        for job, chunk in zip(jobs, chunks, strict=True):
            job.read += len(chunk)
            job.todo = job.todo[len(chunk) :]
        ready = [index for index, job in enumerate(jobs) if not job.todo]
        if ready:
            last = torch.tensor([len(chunks[index]) - 1 for index in ready], device=device)
            scores = self.causal.lm_head(hidden[torch.tensor(ready, device=device), last]).float()
            self._write([jobs[index] for index in ready], scores)

    def _write(self, jobs: Sequence[Job], scores: torch.Tensor) -> None:
        highest, places = scores.max(-1)
        for job, row, value, best in zip(jobs, scores, highest.tolist(), places.tolist(), strict=True):
            try:
                reason = job.step(row, best) if math.isfinite(value) else self._spoil(job)
            except Stuck as error:  # of this answer alone; the others go on
                job.todo = []
                job.post(error)
                continue
            if reason:
                job.todo = []
                job.end(reason)
            else:
                job.tell()

    def _spoil(self, job: Job) -> str:
        """Scores that are no numbers come from keys and values that are none: the next in this row must not find them."""
        for pair in self.cache.layers:
            for held in pair:
                held[self.jobs.index(job)] = 0
        job.read = 0
        raise Stuck("the model's scores are not numbers")


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


class Batcher:
    """Steps the lanes in a thread that lives as long as there is something to write. ``turned(tuned)`` switches the adapter."""

    def __init__(
        self, causal: Any, sides: Sequence[bool], turned: Callable[[bool], contextlib.AbstractContextManager[Any]]
    ) -> None:
        self.lanes = {tuned: Lane(causal, CELLS // len(sides)) for tuned in sides}
        self.turned = turned
        self._lock = threading.Lock()
        self._running = False

    def submit(self, job: Job) -> None:
        with self._lock:
            self.lanes[job.settings.tuned].inbox.put(job)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="generate", daemon=True).start()

    def _run(self) -> None:
        for tuned in self._turns():
            lane = self.lanes[tuned]
            try:
                with self.turned(tuned), torch.inference_mode():
                    lane.step()
            except Exception as error:  # raised again where the pieces are read
                lane.fail(error)

    def _turns(self) -> Iterator[bool]:
        while True:
            with self._lock:
                busy = [tuned for tuned, lane in self.lanes.items() if lane.busy]
                self._running = bool(busy)
            if not busy:
                return
            yield from busy
