"""Streams: JSON values one after the other from a file of any size, with what is broken between them.

In: bytes of an array, of an object that holds an array under "data", or of objects written one after the other. Out: one value
at a time, in memory no more than a block or the longest value::

    [{"question": …}, {"question": "头疼 "answer"}, {"question": …}]   ->   a dict, "not JSON: … at character 19", a dict
"""

import codecs
import json
import re
from typing import IO, Any

LONGEST_ROW = 16 * 2**20  # bytes or characters; a longer row is rejected unparsed, so that one line cannot fill the memory
BLOCK = 2**20

DECODER = json.JSONDecoder(strict=False)  # control characters inside strings are removed later
_GAP = re.compile(r"[\s,\x00]*")
_NEXT = re.compile(r"[\]}]\s*,?\s*(?=\{)")
_DATA = re.compile(r'"data"\s*:\s*\[')


def array_start(text: str) -> int:
    start = len(text) - len(text.lstrip("\ufeff \t\r\n"))
    if text[start : start + 1] == "[":
        return start + 1
    wrapped = _DATA.search(text)
    return wrapped.end() if wrapped else start


class Stream:
    """Text of a file read in growing pieces, with the position of the next JSON value."""

    def __init__(self, file: IO[bytes], codec: str) -> None:
        self.file, self.decoder = file, codecs.getincrementaldecoder(codec)(errors="replace")
        self.text, self.position, self.ended, self.skipped = "", 0, False, ""

    def fill(self) -> None:
        """Drop what was read and add as much again as is left, at least one block."""
        left = self.text[self.position :]
        block = self.file.read(max(BLOCK, len(left)))
        self.ended = not block
        self.text, self.position = left + self.decoder.decode(block, final=self.ended), 0

    def at_value(self) -> bool:
        """Move to the next value; false at the end of the array or the file."""
        while True:
            gap = _GAP.match(self.text, self.position)
            self.position = gap.end() if gap else self.position
            if self.position < len(self.text) or self.ended:
                break
            self.fill()
        return self.position < len(self.text) and self.text[self.position] not in "]}"

    def value(self, keys: frozenset[str]) -> Any:
        """The value here, or (as a string) why there is none; the position moves behind it either way."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except RecursionError:
                reason, broken_at = "JSON nested too deep", self.position
            except json.JSONDecodeError as error:
                reason, broken_at = f"not JSON: {error.msg} at character {error.pos - self.position + 1} of the row", error.pos
            else:
                if end < len(self.text) or self.ended:
                    self.position = end
                    return value if not isinstance(value, str) else "a string, not an object"
                reason, broken_at = "", end
            if self.ended or len(self.text) - self.position > LONGEST_ROW:
                return self._skip(reason or "row too long", broken_at, keys)
            if (found := self._resume(broken_at, keys)) is not None:
                return self._jump(reason, found)
            self.fill()

    def _resume(self, broken_at: int, keys: frozenset[str]) -> int | None:
        """Where, after a broken row, the next row with the keys of the rows before begins."""
        for gap in _NEXT.finditer(self.text, max(broken_at - 1, self.position)):
            try:
                value, _ = DECODER.raw_decode(self.text, gap.end())
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and (not keys or keys & set(value)):
                return gap.end()
        return None

    def _jump(self, reason: str, position: int) -> str:
        self.skipped, self.position = self.text[self.position : self.position + 200], position
        return reason

    def _skip(self, reason: str, broken_at: int, keys: frozenset[str]) -> str:
        """Behind a row that cannot be read although all of it, or as much as is allowed, is here."""
        beginning = self.text[self.position : self.position + 200]
        found = self._resume(broken_at, keys)
        while found is None and not self.ended:
            self.position = max(len(self.text) - BLOCK, self.position)
            self.fill()
            found = self._resume(self.position, keys)
        self.skipped, self.position = beginning, len(self.text) if found is None else found
        return reason
