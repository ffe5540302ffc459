"""Records: reading any corpus file into them, writing them, and the manifest of a run folder.

In: files of question-answer rows in any of the shapes real corpora come in. Out: one JSON line per record::

    {"id": "b3e1…", "group": "b3e1…", "messages": [{"role": "user", "content": "胃疼吃什么药？"},
     {"role": "assistant", "content": "…"}], "source": {"file": "my.csv", "row": 17}, "meta": {"department": "消化内科"}}
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinglin import __version__, reading
from xinglin.schema import Message
from xinglin.shapes import Dialogue


@dataclass(frozen=True)
class Record:
    """One dialogue: user and assistant turns in order, the last one the assistant's."""

    id: str
    group: str
    messages: list[Message]
    source: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        return next(turn["content"] for turn in reversed(self.messages) if turn["role"] == "user")

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def history(self) -> list[Message]:
        """The turns before the last question, without any system turn."""
        return [turn for turn in self.messages[:-2] if turn["role"] != "system"]


@dataclass(frozen=True)
class Rejected:
    """A row that was not taken over: where it stood, why, and its beginning."""

    source: dict[str, Any]
    reason: str
    raw: str


# ---------------------------------------------------------------- JSON Lines


_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def to_json(value: Record | Rejected | Mapping[str, Any]) -> str:
    return _ENCODE(value if isinstance(value, Mapping) else vars(value))


def write_jsonl(path: Path, rows: Iterable[Record | Rejected | Mapping[str, Any]]) -> int:
    """Write rows as JSON Lines, the whole file or nothing; returns how many."""
    count = 0
    with atomic(path) as file:
        for row in rows:
            file.write(to_json(row) + "\n")
            count += 1
    return count


def load(path: Path) -> list[Record]:
    """Records written by ``write_jsonl``. Raises ``ValueError`` naming the line that does not parse."""
    return list(iterate(path))


def iterate(path: Path) -> Iterator[Record]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Record(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}:{number}: not a record ({error}); delete the folder and run the stage again") from None


# ---------------------------------------------------------------- files written whole or not at all


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open ``path`` for writing text; it appears, complete and synced, only when the block ends without an error."""
    with room(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


_ADVICE = "free some space and run the same command again"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Polars puts the number into its text; NumPy drops it, and says only how much of an array was written.
_FULL_TEXT = re.compile(rf"\(os error (?:{'|'.join(map(str, sorted(_FULL)))})\)|^\d+ requested and \d+ written$")


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Add ``path`` and what to do to the ``OSError`` of a full disk, a spent quota or a limit on sizes; other errors pass."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL or _FULL_TEXT.search(str(error))
        if not full or _ADVICE in str(error):
            raise
        raise OSError(error.errno or errno.ENOSPC, f"{error.strerror or error}; {_ADVICE}", str(path)) from None


def write_text(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


# ---------------------------------------------------------------- manifest of a stage folder


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """Hash over the sources that decide what a stage writes: the package without its command line and its server."""
    root = Path(__file__).parent
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in {"serve", "cli.py", "doctor.py"}:
            digest.update(str(relative).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def manifest(inputs: Iterable[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's result depends on: sha256 of every input file, its settings, the code version."""
    return {
        "inputs": {str(path): sha256(path) for path in inputs},
        "settings": dict(settings),
        "code": code_version(),
    }


def finished(folder: Path, expected: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds the finished result of exactly this manifest, every output still as written."""
    path = folder / "manifest.json"
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    outputs = found.pop("outputs", {})
    found.pop("facts", None)
    if found != json.loads(json.dumps(expected)):
        return False
    return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in outputs.items())


def finish(folder: Path, expected: Mapping[str, Any], outputs: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Write the manifest, last of all files: a folder without one is unfinished. ``facts`` are counts and times."""
    digests = {str(path.relative_to(folder)): sha256(path) for path in outputs}
    write_json(folder / "manifest.json", {**expected, "outputs": digests, "facts": dict(facts)})


def made_from(folder: Path, path: Path) -> bool:
    """Whether the finished stage in ``folder`` read ``path`` as it is now."""
    found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return path.is_file() and sha256(path) in found["inputs"].values()


# ---------------------------------------------------------------- reading


def read(path: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Record | Rejected]:
    """Rows of a corpus file, in order; a row that cannot be read is yielded as ``Rejected``, never raised.

    ``columns`` names the columns of a table where the usual names do not fit: ``{"question": …, "answer": …, "department": …}``.
    """
    for row in reading.dialogues(Path(path), columns):
        source = {"file": str(path), "row": row.row}
        if isinstance(row, Dialogue):
            yield record(row.turns, source, row.department, row.id, rejected=row.rejected, label=row.label)
        else:
            yield Rejected(source, row.reason, row.raw)


def record(
    turns: Sequence[str], source: dict[str, Any], department: str | None, id: str | None, group: str = "",
    rejected: str | None = None, label: bool | None = None,
) -> Record:  # fmt: skip
    """A record of alternating turns, the user's first; its id is the hash of what is said, its own id is kept in ``meta``."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    key = digest("\x1e".join(turns))
    said = {"department": department, "id": id, "rejected": rejected, "label": label}
    meta = {name: value for name, value in said.items() if value or value is False}
    return Record(key, group or key, messages, source, meta)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
