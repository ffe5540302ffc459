"""Reading: the rows of a corpus file in any of the formats and encodings real corpora come in, streamed.

In: a path. Out: one ``Dialogue`` or ``Unreadable`` per row, in order::

    Dialogue(row=17, turns=("胃疼吃什么药？", "先查明原因……"), department="消化内科", id=None)
    Unreadable(row=18, reason="not JSON: Expecting ',' delimiter at character 40", raw='{"question": "头疼" "ans')

``row`` is the 1-based line of a text file (where a row spans lines, its first), or the 1-based index in a JSON array or a
Parquet file. What a row may look like is in ``xinglin.shapes``.
"""

import ast
import codecs
import csv
import gzip
import re
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl

from xinglin import streams
from xinglin.shapes import Dialogue, Unreadable, dialogue

LONGEST_QUOTE = 500  # lines; a quoted CSV field that runs on for longer was never closed
LONGEST_LITERAL = 2**20  # characters; Python needs a hundred times the size of a literal to read it

_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)

csv.field_size_limit(streams.LONGEST_ROW)

Row = tuple[int, Any]  # its number; its value, or an Unreadable


class Kind(NamedTuple):
    """What a file turned out to be, as the report names it."""

    format: str  # "json", "jsonl", "csv", "tsv", "text" or "parquet"
    encoding: str  # a Python codec; "" for Parquet
    gzip: bool


@dataclass
class Position:
    """How far a file has been read, in bytes as stored."""

    bytes: int = 0


def dialogues(
    path: Path, columns: Mapping[str, str] | None = None, kind: Kind | None = None, position: Position | None = None
) -> Iterator[Dialogue | Unreadable]:
    """The rows of a file. ``columns`` names the columns of a table: ``{"question": …, "answer": …, "department": …}``."""
    for number, value in rows(path, kind or detect(path), position or Position()):
        if isinstance(value, Unreadable):
            yield value._replace(reason=f"unreadable: {value.reason}")
        else:
            yield dialogue(number, value, columns or {})


def rows(path: Path, kind: Kind, position: Position) -> Iterator[Row]:
    """The raw values of a file, with what could not be read in between as ``Unreadable``."""
    if kind.format == "parquet":
        yield from _parquet(path)
        return
    number = 0
    with open(path, "rb") as stored, _open(stored, kind) as file:
        try:
            for number, value in _READERS[kind.format](file, kind):
                yield number, value
                if number % 1000 == 0:
                    position.bytes = stored.tell()
        except _BROKEN as error:
            yield _bad(number + 1, f"gzip stream broken after row {number}: {error}", "")


def row_at(path: Path, line: int) -> int:
    """The number of the row that holds a line of a file; ``line`` itself where no row spans lines, or none is there."""
    kind = detect(path)
    if kind.format not in {"csv", "tsv", "text"}:
        return line
    with open(path, "rb") as stored, _open(stored, kind) as file:
        lines = _lines(file, kind)
        spans = _paragraphs(lines) if kind.format == "text" else _logical_lines(lines)
        for number, text in spans:
            if number <= line <= number + (text.count("\n") if isinstance(text, str) else 0):
                return number
    return line


def _bad(number: int, reason: str, raw: str) -> Row:
    return number, Unreadable(number, reason, raw[:200])


# ---------------------------------------------------------------- which kind of file


def detect(path: Path) -> Kind:
    """Format, encoding and compression, from the bytes; the suffix only tells tables and plain text apart."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    head = _head(path, zipped)
    if head[:4] == b"PAR1":
        return Kind("parquet", "", zipped)
    if head[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise ValueError(f"{path}: an Excel workbook or a ZIP archive; save the table as CSV, or unpack the archive")
    encoding = _encoding(head)
    start = head.decode(encoding, errors="ignore").lstrip("\ufeff \t\r\n")
    return Kind(_format(path, start), encoding, zipped)


def _head(path: Path, zipped: bool) -> bytes:
    """The first block, and the blocks up to the first one that is not plain ASCII; cut at the end of a line."""
    head = b""
    with open(path, "rb") as raw:
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        try:
            head = block = file.read(streams.BLOCK)
            while block and block.isascii():
                block = file.read(streams.BLOCK)
            head += b"" if block is head else block
        except _BROKEN:
            pass  # rows are read up to the break, and the break is reported there
    return head[: head.rfind(b"\n") + 1] or head


def _encoding(head: bytes) -> str:
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            return encoding
    wrong = {encoding: head.decode(encoding, errors="replace").count("\ufffd") for encoding in ("utf-8", "gb18030")}
    # A character cut in half makes one error in either; a few damaged lines make few, the wrong encoding makes many.
    return "utf-8" if wrong["utf-8"] <= max(1, wrong["gb18030"]) else "gb18030"


def _format(path: Path, start: str) -> str:
    suffix = next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        return "jsonl" if _one_per_line(start) else "json"
    if suffix in {".jsonl", ".json", ".ndjson"}:
        return "jsonl"
    if suffix == ".txt":
        return "text"
    header = start.split("\n", 1)[0]
    return "tsv" if suffix == ".tsv" or ("\t" in header and "," not in header) else "csv"


def _one_per_line(start: str) -> bool:
    """Whether a file that begins with an object holds one per line, and not one object over all or many lines."""
    first, _, rest = start.partition("\n")
    wrapper = re.match(r'\{\s*"(?:metadata|data)"\s*:', first)
    return not wrapper and (first.rstrip().endswith("}") or rest.lstrip().startswith("{"))


# ---------------------------------------------------------------- bytes to lines


def _open(stored: IO[bytes], kind: Kind) -> IO[bytes]:
    """The bytes of a file, unzipped; UTF-16 is turned into UTF-8 first, since its lines cannot be told by their bytes."""
    file: IO[bytes] = gzip.GzipFile(fileobj=stored) if kind.gzip else stored  # type: ignore[assignment]
    if kind.encoding != "utf-16":
        return file
    turned: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    blocks = iter(lambda: file.read(streams.BLOCK), b"")
    for text in codecs.iterdecode(blocks, "utf-16", errors="replace"):
        turned.write(text.encode("utf-8", "replace"))
    turned.seek(0)
    return turned


def _codec(kind: Kind) -> str:
    return "gb18030" if kind.encoding == "gb18030" else "utf-8"


def _lines(file: IO[bytes], kind: Kind) -> Iterator[tuple[int, str | Unreadable]]:
    """Number and text of every line, without its end; too long or undecodable ones as ``Unreadable``."""
    codec, number = _codec(kind), 0
    while raw := file.readline(streams.LONGEST_ROW):
        number += 1
        if len(raw) == streams.LONGEST_ROW and not raw.endswith(b"\n"):
            yield number, _too_long(number, raw, file, codec)
            continue
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError as error:
            beginning = raw[:600].decode(codec, errors="replace")[:200]
            yield number, Unreadable(number, f"not {codec}: {error.reason} at byte {error.start + 1} of the line", beginning)
            continue
        text = text.rstrip("\r\n")
        yield number, text.lstrip("\ufeff") if number == 1 else text


def _too_long(number: int, raw: bytes, file: IO[bytes], codec: str) -> Unreadable:
    length, rest = len(raw), raw
    while rest and not rest.endswith(b"\n"):
        rest = file.readline(streams.LONGEST_ROW)
        length += len(rest)
    beginning = raw[:600].decode(codec, errors="replace")[:200]
    return Unreadable(number, f"line of {length} bytes; the longest read is {streams.LONGEST_ROW}", beginning)


# ---------------------------------------------------------------- JSON


def _json_lines(file: IO[bytes], kind: Kind) -> Iterator[Row]:
    for number, line in _lines(file, kind):
        if isinstance(line, Unreadable):
            yield number, line
        elif line and not line.isspace():
            yield number, _value(number, line)


def _value(number: int, line: str) -> Any:
    text = line.strip().rstrip(",").replace("\0", "")
    try:
        return streams.DECODER.decode(text)
    except RecursionError:
        return Unreadable(number, "JSON nested too deep", line[:200])
    except ValueError as error:
        return _literal(number, text, f"not JSON: {error}")


def _literal(number: int, text: str, reason: str) -> Any:
    """A row printed by Python, with single quotes; it is parsed, never run."""
    if not text.startswith("{") or len(text) > LONGEST_LITERAL or "'" not in text:
        return Unreadable(number, reason, text[:200])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return Unreadable(number, reason, text[:200])


def _json_array(file: IO[bytes], kind: Kind) -> Iterator[Row]:
    """The elements of one array, of the array under "data", or objects written one after the other."""
    stream = streams.Stream(file, _codec(kind))
    stream.fill()
    stream.position = streams.array_start(stream.text)
    number, keys = 0, frozenset[str]()
    while stream.at_value():
        number += 1
        value = stream.value(keys)
        if isinstance(value, dict) and not keys:
            keys = frozenset(value)
        yield (number, value) if not isinstance(value, str) else _bad(number, value, stream.skipped)


# ---------------------------------------------------------------- tables and text


def _table(file: IO[bytes], kind: Kind) -> Iterator[Row]:
    header: list[str] = []
    delimiter = "\t" if kind.format == "tsv" else ","
    for number, line in _logical_lines(_lines(file, kind)):
        if isinstance(line, Unreadable):
            yield number, line
            continue
        try:
            values = next(csv.reader([line.replace("\0", "")], delimiter=delimiter), [])
        except csv.Error as error:
            yield _bad(number, f"not a row of a table: {error}", line)
            continue
        if not header:
            header = [name.strip() for name in values]
        elif len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif values:
            yield _bad(number, f"{len(values)} columns where the header has {len(header)}", line)


def _logical_lines(lines: Iterator[tuple[int, str | Unreadable]]) -> Iterator[tuple[int, str | Unreadable]]:
    """Rows of a table, quoted line breaks inside; a quote that is never closed costs its own line only."""
    waiting: list[tuple[int, str | Unreadable]] = []
    while True:
        number, line = waiting.pop(0) if waiting else next(lines, (0, ""))
        if not number:
            return
        if isinstance(line, Unreadable) or not _open_quote(line):
            yield number, line
            continue
        taken = _until_closed(line, waiting, lines)
        if taken:
            yield number, "\n".join([line, *(text for _, text in waiting[:taken] if isinstance(text, str))])
            del waiting[:taken]
        else:
            yield number, Unreadable(number, "a quote is opened and never closed", line[:200])


def _open_quote(text: str) -> bool:
    """Whether a quoted field is still open at the end; a quote inside a bare field opens nothing."""
    if text.count('"') % 2 == 0:
        return False
    try:
        next(csv.reader([text], strict=True), None)
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _until_closed(line: str, waiting: list[tuple[int, str | Unreadable]], lines: Iterator[tuple[int, str | Unreadable]]) -> int:
    """How many of the following lines belong to an open quote, 0 if it is never closed; looked at lines wait."""
    for taken in range(LONGEST_QUOTE):
        if taken == len(waiting):
            following = next(lines, None)
            if following is None:
                return 0
            waiting.append(following)
        text = waiting[taken][1]
        if isinstance(text, Unreadable):
            return 0
        line = f"{line}\n{text}"
        if '"' in text and not _open_quote(line):
            return taken + 1
    return 0


def _text(file: IO[bytes], kind: Kind) -> Iterator[Row]:
    """Plain text: paragraphs parted by blank lines, the first line the question, the rest the answer."""
    for number, paragraph in _paragraphs(_lines(file, kind)):
        if isinstance(paragraph, Unreadable):
            yield number, paragraph
        else:
            question, _, answer = paragraph.partition("\n")
            yield number, {"question": question, "answer": answer}


def _paragraphs(lines: Iterator[tuple[int, str | Unreadable]]) -> Iterator[tuple[int, str | Unreadable]]:
    start, paragraph = 0, list[str]()
    for number, line in lines:
        if isinstance(line, Unreadable):
            yield number, line
        elif line.strip():
            start = start if paragraph else number
            paragraph.append(line.strip())
        elif paragraph:
            yield start, "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield start, "\n".join(paragraph)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        total = pl.scan_parquet(path).select(pl.len()).collect().item()
        number = 0
        for offset in range(0, total, 20_000):
            for value in pl.scan_parquet(path).slice(offset, 20_000).collect().iter_rows(named=True):
                number += 1
                yield number, value
    except pl.exceptions.PolarsError as error:
        yield _bad(1, f"not a Parquet file: {' '.join(str(error).split())[:120]}", "")


_READERS = {"json": _json_array, "jsonl": _json_lines, "csv": _table, "tsv": _table, "text": _text}
