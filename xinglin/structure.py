"""Guides: what may be written next, so that an answer has its form whatever the model would like.

In: the text so far and the token the model picked. Out: whether the token is allowed, and what stands in the answer afterwards.
``Free`` lets the model do as it likes; ``Sections`` forces titles and labels of the answer schema, in order, each point within a
share of the token limit; ``Grammar`` keeps to a JSON schema (llguidance). The token is looked at after it was picked: a mask over
the whole vocabulary is only needed where a pick is refused, which a good model rarely has done to it::

    picked "二、" at the start of a line in the first section -> the line is taken back, ``schema.PIECES[2]`` forced
"""

import codecs
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from xinglin import schema
from xinglin.generation import SchemaError

CUT = "……"  # marks a sentence that the limit cut
LEAST = 4  # tokens a point needs; with less room the answer is cut at the limit instead
SPLIT = "�"  # the decoder's sign for half a character


class Stuck(RuntimeError):
    """Nothing can be written next."""


class Codec:
    """The parts of a tokenizer that run at every token, without its wrappers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend: Any = tokenizer.backend_tokenizer
        self.end: int = tokenizer.eos_token_id
        self.size = len(tokenizer)
        self.control = frozenset(tokenizer.all_special_ids)
        self.decode = backend.decode  # skips control tokens
        self.encode = lru_cache(64)(lambda text: tokenizer.encode(text, add_special_tokens=False))
        self.spelled = backend.id_to_token
        self.bytewise = isinstance(backend.decoder, ByteLevel)

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """What tokens of a byte-level vocabulary stand for."""
        known = _bytes_by_sign()
        return b"".join(known.get(sign) or sign.encode() for token in tokens for sign in self.spelled(token))


@lru_cache(1)
def _bytes_by_sign() -> dict[str, bytes]:
    """The byte behind each sign by which byte-level vocabularies spell it: printable Latin-1 as it is, others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): bytes([byte]) for byte in plain} | {chr(256 + place): bytes([byte]) for place, byte in enumerate(rest)}


class Written:
    """The answer so far, as tokens and as text. ``low``: how many tokens were never taken back since it was last set."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.ids: list[int] = []
        self.text = ""
        self.low = 0
        # Places between tokens where no character is split, in tokens and in characters.
        self.places, self.ends = [0], [0]

    def after(self, token: int) -> str:
        """The text as it would be with ``token``."""
        start = self.places[max(0, len(self.places) - 4)]
        known = self.codec.decode(self.ids[start : self.places[-1]])
        return self.text[: self.ends[-1]] + str(self.codec.decode([*self.ids[start:], token]))[len(known) :]

    def missing(self, token: int) -> int | None:
        """Bytes that the last character lacks after ``token``, at most; None where no character can come of it any more."""
        data = self.codec.bytes_of([*self.ids[self.places[-1] :], token])
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            whole = decoder.decode(data)
        except UnicodeDecodeError:
            return None
        begun = decoder.getstate()[0]
        if SPLIT in whole:
            return None
        return sum(begun[0] >= lead for lead in (0xC0, 0xE0, 0xF0)) + 1 - len(begun) if begun else 0

    def add(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self.text = self.after(token)
            self.ids.append(token)
            # A character has at most four bytes: after eight tokens a broken one stays broken.
            if not self.text.endswith(SPLIT) or len(self.ids) - self.places[-1] > 8:
                self.places.append(len(self.ids))
                self.ends.append(len(self.text))

    def place(self, character: int) -> int:
        """Index of the last place at or before ``character``."""
        return bisect_right(self.ends, character) - 1

    def take_back(self, character: int) -> None:
        """Forget the tokens that reach beyond ``character``."""
        keep = self.place(character) + 1
        self.places, self.ends = self.places[:keep], self.ends[:keep]
        self.ids, self.text = self.ids[: self.places[-1]], self.text[: self.ends[-1]]
        self.low = min(self.low, len(self.ids))


class Guide(Protocol):
    def start(self, written: Written) -> None:
        """Write what stands before the model's first token."""

    def allows(self, written: Written, token: int) -> bool: ...

    def narrow(self, scores: torch.Tensor) -> None:
        """After a refusal: take what else is known to be wrong out of the scores, in place."""

    def take(self, written: Written, token: int) -> bool:
        """Write an allowed token and what follows from it; True: the answer is finished."""

    def shown(self, written: Written) -> int:
        """How many characters will not be taken back."""


class Free:
    def start(self, written: Written) -> None:
        pass

    def allows(self, written: Written, token: int) -> bool:
        return True

    def narrow(self, scores: torch.Tensor) -> None:
        pass

    def take(self, written: Written, token: int) -> bool:
        written.add([token])
        return token == written.codec.end

    def shown(self, written: Written) -> int:
        return len(written.text.rstrip(SPLIT))


class Sections:
    """Six points under three titles. A point ends when the model ends it (a later title, ordinal or label at the start of a line,
    or its end token), or when its share is used up: at the first end of a sentence in the last quarter, or cut."""

    def __init__(self, codec: Codec, limit: int) -> None:
        self.limit = limit
        self.closing = len(codec.encode(CUT))
        self.costs = [len(codec.encode(piece)) + self.closing for piece in schema.PIECES]
        self.fits = limit >= sum(self.costs) + LEAST * len(self.costs)
        self.point = -1
        self.begin = 0  # of the point's text, in characters
        self.until = self.soon = limit  # of the point, in tokens
        self.filled = False

    @property
    def last(self) -> bool:
        return self.point == len(schema.PIECES) - 1

    def start(self, written: Written) -> None:
        self._open(written)

    def allows(self, written: Written, token: int) -> bool:
        codec = written.codec
        if token == codec.end:
            return self.filled and not written.text.endswith(SPLIT)
        if token in codec.control or token >= codec.size:
            return False
        text = written.after(token)
        if SPLIT in text[written.ends[-1] :] and codec.bytewise and not self._completes(written, token):
            return False
        for begin, line in _lines(text, len(written.text)):
            if schema.advances(line, self.point):
                return schema.has_content(text[self.begin : written.ends[written.place(begin)]])
            if schema.titles(line):
                return False
        return len(written.ids) + 1 < self.until or self._ends_well(text)

    def _completes(self, written: Written, token: int) -> bool:
        """Whether the character that ``token`` leaves half written can still be, with room to spare, byte by byte."""
        missing = written.missing(token)
        return missing is not None and len(written.ids) + 1 + missing < self.until

    def _ends_well(self, text: str) -> bool:
        """The last token of a share leaves a text that may end there."""
        return not text.endswith(SPLIT) and (self.filled or schema.has_content(text[self.begin :]))

    def narrow(self, scores: torch.Tensor) -> None:
        pass  # next to everything else is allowed

    def take(self, written: Written, token: int) -> bool:
        if token == written.codec.end:
            return self._close(written, "。", [token])
        known = len(written.text)
        written.add([token])
        for begin, line in _lines(written.text, known):
            if schema.advances(line, self.point):
                written.take_back(begin)
                return self._close(written, "", [])
        self.filled = self.filled or schema.has_content(written.text[self.begin :])
        count = len(written.ids)
        rests = count >= self.soon and self.filled and schema.finished(written.text[known:])
        if self.fits and (rests or count >= self.until):
            return self._close(written, CUT, [])
        return False

    def _close(self, written: Written, mark: str, end: list[int]) -> bool:
        """End the point, with ``mark`` where its sentence is not finished; open the next one, or end the answer."""
        if mark and not schema.finished(written.text):
            written.add(written.codec.encode(mark))
        if self.last:
            written.add(end)
            return True
        self._open(written)
        return False

    def _open(self, written: Written) -> None:
        self.point += 1
        piece = schema.PIECES[self.point]
        written.add(written.codec.encode(_without_newlines_there(piece, written.text)))
        self.begin, self.filled = len(written.text), False
        if self.fits:
            room = self.limit - len(written.ids) - sum(self.costs[self.point + 1 :]) - self.closing
            share = room // (len(self.costs) - self.point)
            self.until = len(written.ids) + share
            self.soon = self.until - share // 4

    def shown(self, written: Written) -> int:
        text = written.text
        begin = text.rfind("\n") + 1
        if self.last or begin < self.begin or not schema.undecided(text[begin:]):
            return len(text.rstrip(SPLIT))
        return written.ends[written.place(begin)]


def _without_newlines_there(piece: str, text: str) -> str:
    """``piece`` without those of its leading newlines that end ``text`` already."""
    there = len(text) - len(text.rstrip("\n"))
    wanted = len(piece) - len(piece.lstrip("\n"))
    return piece[min(there, wanted) :]


def _lines(text: str, known: int) -> list[tuple[int, str]]:
    """(first character, line) of the lines that ``text`` changed after its first ``known`` characters."""
    begin = text.rfind("\n", 0, known) + 1
    lines = []
    for line in text[begin:].split("\n"):
        lines.append((begin, line))
        begin += len(line) + 1
    return lines


class Grammar:
    """JSON of one schema. Raises ``SchemaError`` where llguidance cannot promise the schema."""

    def __init__(self, tokenizer: Any, json_schema: str) -> None:
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json_schema, overrides={"whitespace_flexible": False})
        self.matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if self.matcher.is_error():
            raise SchemaError(self.matcher.get_error().splitlines()[0][:300])

    def start(self, written: Written) -> None:
        pass

    def allows(self, written: Written, token: int) -> bool:
        return bool(self.matcher.validate_tokens([token]))

    def narrow(self, scores: torch.Tensor) -> None:
        allowed = torch.frombuffer(bytearray(self.matcher.compute_logit_bias()), dtype=torch.uint8).to(scores.device)
        scores[: len(allowed)][allowed == 0] = -torch.inf
        scores[len(allowed) :] = -torch.inf

    def take(self, written: Written, token: int) -> bool:
        written.add([token])
        self.matcher.consume_token(token)
        if self.matcher.is_error():  # one of llguidance's limits: the schema is too intricate
            raise Stuck(self.matcher.get_error().splitlines()[0][:300])
        return token == written.codec.end or bool(self.matcher.is_stopped())

    def shown(self, written: Written) -> int:
        return len(written.text.rstrip(SPLIT))


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> Any:
    """llguidance's view of a tokenizer; ``size``: how many scores the model gives. Takes about two seconds for 151 k tokens."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=size)  # type: ignore[arg-type]
