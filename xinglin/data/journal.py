"""The journal of a rewrite: one SQLite row per record and request, kept for ever; what is finished is never sent again.

In: an ``Entry`` for every row, again whenever its state changes. Out: the same, looked up by record and request::

    Entry(id="b3e1…", request="77ac…", state="accepted", attempts=1, model="deepseek-chat", prompt="1f0c…", reply="一、…",
          finish="stop", prompt_tokens=612, cached_tokens=512, completion_tokens=498, price=0.00041, seconds=14.2)

``request`` is a hash over model, prompt version, question and answer: another prompt or model makes new rows beside the old ones.
Write-ahead log and full sync: what ``put`` has returned from survives a kill and a power cut.
"""

import asyncio
import fcntl
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

PENDING, ACCEPTED, PASSED, REJECTED, FAILED = "pending", "accepted", "passed through", "rejected", "failed"
STATES = (ACCEPTED, PASSED, REJECTED, FAILED, PENDING)
UNFINISHED = (PENDING, FAILED)
GATHER = 0.01  # seconds; what finishes within it shares one sync of the disk
VERSION = "1"


@dataclass(frozen=True)
class Entry:
    """Tokens and money are sums over all attempts; ``seconds`` is the latency of the last answer, ``updated`` Unix time.

    ``lost_price``: upper bound of what attempts may have cost whose answer never arrived, beside ``price``.
    ``policy``: hash of the rules that decided the state from ``reply``. ``findings``: a JSON list of [kind, span, message];
    ``retries``: a JSON list of what attempts were repeated for. ``position``: byte at which the record starts in the input file.
    """

    id: str
    request: str
    state: str = PENDING
    reason: str = ""
    attempts: int = 0
    model: str = ""
    prompt: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    price: float = 0.0
    lost_price: float = 0.0
    finish: str = ""
    findings: str = "[]"
    judge: str = ""
    seconds: float = 0.0
    reply: str = ""
    policy: str = ""
    retries: str = "[]"
    position: int = 0
    updated: float = 0.0


COLUMNS = tuple(field.name for field in fields(Entry))
values = attrgetter(*COLUMNS)  # dataclasses.astuple copies deeply: ten times the time
SELECT = f"SELECT {', '.join(COLUMNS)} FROM row"
INSERT = f"INTO row ({', '.join(COLUMNS)}, current) VALUES ({', '.join('?' * len(COLUMNS))}, 1)"
CREATE = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS row ({", ".join(COLUMNS)}, current, PRIMARY KEY (id, request)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS row_state ON row (current, state);
"""


class Journal:
    """One writer at a time, held by a lock that ends with the process. Raises ``ValueError`` in one line where it cannot work."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            self._writer, self._reader = _connect(path), _connect(path)
            self._writer.executescript(CREATE)
            self._claim(owner)
        except (sqlite3.DatabaseError, ValueError) as error:
            os.close(self._lock)
            raise self._explain(error) if isinstance(error, sqlite3.DatabaseError) else error from None
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._judged: dict[tuple[str, str], tuple[str, str]] = {}

    def _claim(self, owner: str) -> None:
        self._writer.execute("INSERT OR IGNORE INTO meta VALUES ('owner', ?), ('version', ?)", (owner, VERSION))
        found = dict(self._writer.execute("SELECT key, value FROM meta").fetchall())
        if found["version"] != VERSION:
            raise ValueError(f"{self.path}: written by another version of the journal; move it away to start a new one")
        if found["owner"] != owner:
            raise ValueError(
                f"{self.path}: belongs to recipe {found['owner']!r}, not {owner!r}; move it away or give the recipe that name"
            )

    def plan(self, entries: Iterable[Entry]) -> None:
        """Take up the rows of this run, in one transaction: new ones as they come, known ones as they are."""
        try:
            self._writer.execute("BEGIN")
            self._writer.execute("UPDATE row SET current = 0 WHERE current = 1")
            self._writer.executemany(
                f"INSERT {INSERT} ON CONFLICT DO UPDATE SET current = 1, position = excluded.position",
                map(values, entries),
            )
            self._writer.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from None
        finally:
            self._roll_back()

    def get(self, id: str, request: str) -> Entry | None:
        found = self._reader.execute(f"{SELECT} WHERE id = ? AND request = ?", (id, request)).fetchone()
        return Entry(*found) if found else None

    def unfinished(self) -> Iterator[Entry]:
        """Rows to send, pending ones, then those that had failed before; a few at a time, an open read would keep the log from
        shrinking."""
        before = {PENDING: math.inf, FAILED: time.time()}
        for state in UNFINISHED:
            last = ("", "")
            while found := self._page(state, last, "updated < ?", before[state]):
                yield from found
                last = (found[-1].id, found[-1].request)

    def outdated(self, policy: str) -> list[Entry]:
        """The next rows that other rules have decided from an answer that is still there; none once all have been named."""
        for state in (ACCEPTED, REJECTED):
            after = self._judged.get((policy, state), ("", ""))
            if found := self._page(state, after, "reply != '' AND policy != ?", policy):
                self._judged[policy, state] = (found[-1].id, found[-1].request)
                return found
        self._judged.clear()
        return []

    def _page(self, state: str, after: tuple[str, str], also: str, value: str | float) -> list[Entry]:
        where = f"WHERE current = 1 AND state = ? AND (id, request) > (?, ?) AND {also} ORDER BY id, request LIMIT 200"
        return [Entry(*found) for found in self._reader.execute(f"{SELECT} {where}", (state, *after, value)).fetchall()]

    async def put(self, entry: Entry) -> None:
        """Return when the entry is on the disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER)
                batch, self._waiting = self._waiting, []
                _settle(batch, await self._sync([entry for entry, _ in batch]))
        finally:
            self._flushing = None

    async def _sync(self, entries: list[Entry]) -> Exception | None:
        try:
            self._insert(entries)
            await asyncio.to_thread(self._commit)
        except Exception as error:  # whatever it is, those who wait in ``put`` must hear of it: nobody else awaits this task
            self._roll_back()
            return error
        return None

    def write(self, entries: list[Entry]) -> None:
        """Write entries in one transaction, synced."""
        self._insert(entries)
        self._commit()

    def _insert(self, entries: list[Entry]) -> None:
        """Quick and without the disk: in a thread every row would wait for its turn of the interpreter."""
        self._execute("BEGIN IMMEDIATE")
        try:
            self._writer.executemany(f"INSERT OR REPLACE {INSERT}", [values(entry) for entry in entries])
        except sqlite3.DatabaseError as error:
            self._give_up(error)
        except BaseException:  # a value SQLite cannot hold: an open transaction would refuse every later row
            self._roll_back()
            raise

    def _commit(self) -> None:
        self._execute("COMMIT")

    def _execute(self, statement: str) -> None:
        try:
            self._writer.execute(statement)
        except sqlite3.DatabaseError as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.DatabaseError) -> NoReturn:
        self._roll_back()
        raise self._explain(error) from None

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def close(self) -> None:
        """What still waits for its sync is written first."""
        if self._writer.in_transaction:
            self._commit()
        batch, self._waiting = self._waiting, []
        if batch:
            self.write([entry for entry, _ in batch])
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    def _explain(self, error: sqlite3.DatabaseError) -> ValueError:
        return _explained(self.path, error)


def _explained(path: Path, error: sqlite3.DatabaseError) -> ValueError:
    if "full" in str(error):
        return ValueError(f"{path}: the disk is full; free some space and run the same command again, finished rows are kept")
    if "disk I/O error" in str(error):
        why = "the disk is full, fails or limits the size of files"
        return ValueError(f"{path}: {why} ({error}); mend that and run the same command again, finished rows are kept")
    return ValueError(f"{path}: {error}; if it is not a journal or is damaged, move it away to start a new one")


def _settle(batch: list[tuple[Entry, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _lock(path: Path) -> int:
    """A lock the system releases however the process ends."""
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"{path}: another run is working on it; wait for it to end, or watch it with --status") from None
    return handle


# ---------------------------------------------------------------- reading a running or stopped journal


@dataclass(frozen=True)
class Summary:
    """``states`` counts the rows of the current plan; money and tokens are of all requests ever sent."""

    states: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    price: float
    lost_price: float
    recent: int
    updated: float

    @property
    def rows(self) -> int:
        return sum(self.states.values())

    @property
    def unfinished(self) -> int:
        return sum(self.states[state] for state in UNFINISHED)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A reader for reports; raises ``ValueError`` where there is no journal yet, or where it cannot be read."""
    if not path.is_file():
        raise ValueError(f"{path}: no journal yet; `xinglin rewrite` writes it")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise _explained(path, error) from None


def summary(connection: sqlite3.Connection, window: float = 60.0) -> Summary:
    """Counts and sums; ``recent`` is how many rows were finished in the last ``window`` seconds."""
    counts = dict(connection.execute("SELECT state, count(*) FROM row WHERE current = 1 GROUP BY state").fetchall())
    sums = connection.execute(
        "SELECT total(prompt_tokens), total(cached_tokens), total(completion_tokens), total(price), total(lost_price) FROM row"
    ).fetchone()
    since = time.time() - window
    recent, updated = connection.execute(
        "SELECT total(updated > ? AND state IN ('accepted', 'rejected')), coalesce(max(updated), 0) FROM row WHERE current = 1",
        (since,),
    ).fetchone()
    prompt, cached, completion = (int(value) for value in sums[:3])
    states = {state: counts.get(state, 0) for state in STATES}
    return Summary(states, prompt, cached, completion, sums[3], sums[4], int(recent), updated)


def read(path: Path) -> Summary:
    with reading(path) as connection:
        return summary(connection)
