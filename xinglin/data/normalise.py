"""Normalising: one form for the same text, without changing what it says.

In: a Polars column of dialogues, turns joined by ``TURN``. Out: the same column, cleaned::

    "体温３８．５℃&nbsp;<br>吃0.3ｇ布洛芬①"   ->   "体温38.5℃\n吃0.3g布洛芬①"

Full NFKC would turn ℃ into °C, ① into 1, 10⁹ into 109 and every Chinese comma into an English one; only the compatibility
characters that stand for the same letter, digit, ideograph or unit are folded here.
"""

import html
import re
import unicodedata

import polars as pl

TURN = "\x1e"  # stands between the turns of a dialogue; a record separator never occurs in text that was normalised

_KEPT = set("！（），：；？～｛｝［］＂＇")  # full-width punctuation is how Chinese is written
_UNITS = range(0x3380, 0x33E0)
_FOLDED = (range(0xFF01, 0xFF5F), range(0xF900, 0xFB00), range(0x2E80, 0x2FE0), range(0xFB00, 0xFB07))
_REMOVED = (
    *range(0x00, 0x09), 0x0B, 0x0C, *range(0x0E, 0x1E), 0x1F, *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x2010),
    *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, *range(0xFFF9, 0xFFFD),
)  # fmt: skip
_SPACES = ("\t", "\xa0", *map(chr, range(0x2000, 0x200B)), "\u202f", "\u205f", "\u3000")


def _folding() -> dict[str, str]:
    """Every character that is replaced, with its replacement."""
    table = {"\r\n": "\n", "\r": "\n", "\u2028": "\n", "\u2029": "\n\n", "\x85": "\n", "µ": "μ", "Ω": "Ω"}
    table |= dict.fromkeys(_SPACES, " ") | dict.fromkeys(map(chr, _REMOVED), "")
    for character in (chr(code) for block in _FOLDED for code in block):
        folded = unicodedata.normalize("NFKC", character)
        if folded != character and character not in _KEPT:
            table[character] = folded
    for character in map(chr, _UNITS):
        folded = unicodedata.normalize("NFKC", character)
        if re.fullmatch(r"[A-Za-zμ/]+", folded):
            table[character] = folded  # ㎎ becomes mg; ㎡ stays, since m2 would read as a name
    return table


FOLDING = _folding()

_BLOCKS = "p|br|div|li|tr|h[1-6]|ul|ol|table|section|article|hr|blockquote|pre|option|dd|dt"
_INLINE = (
    "span|a|b|i|u|s|em|strong|font|img|td|th|tbody|thead|center|small|big|code|label|button|form|input|select|sub|del|ins|tt"
)
_INLINE += "|video|audio|iframe|embed|object|param|meta|link|html|head|body|title|dl|svg|path|figure|o:p|st1:[a-z]+"
_HIDDEN = r"(?is)<(?:script|style)\b.*?</(?:script|style)\s*>|<!--.*?-->|<!doctype[^>]*>"
_BLOCK_TAG = rf"(?i)</?(?:{_BLOCKS})(?:\s[^<>]*|/)?>"
_INLINE_TAG = rf"(?i)</?(?:{_INLINE})(?:\s[^<>]*|/)?>"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});?")


def normalise(text: pl.Expr, simplified: bool = False) -> pl.Expr:
    """The normalised column; ``simplified`` also turns traditional characters into simplified ones."""
    entities = text.str.contains(r"&[#A-Za-z]")
    text = pl.when(entities).then(text.map_batches(_unescape, return_dtype=pl.String)).otherwise(text)
    text = text.str.replace_all(_HIDDEN, "").str.replace_all("(?i)<sup>", "^").str.replace_all("(?i)</sup>", "")
    text = text.str.replace_all(_BLOCK_TAG, "\n").str.replace_all(_INLINE_TAG, "")
    text = text.str.replace_many(FOLDING).str.normalize("NFC")
    if simplified:
        text = text.map_batches(_simplify, return_dtype=pl.String)
    text = text.str.replace_all(" {2,}", " ").str.replace_all(" ?\n ?", "\n").str.replace_all("\n{3,}", "\n\n")
    return text.str.replace_all("[ \n]*\x1e[ \n]*", TURN).str.strip_chars(" \n")


def normalise_text(text: str, simplified: bool = False) -> str:
    """One text, normalised as a column is."""
    cleaned: str = pl.select(normalise(pl.lit(text), simplified)).item()
    return cleaned


def _unescape(texts: pl.Series) -> pl.Series:
    """Entities of the rows that hold any; twice, since pages escaped once too often are common."""
    found = [text if text is None or "&" not in text else _entities(_entities(text)) for text in texts]
    return pl.Series(texts.name, found, dtype=pl.String)


def _entities(text: str) -> str:
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


def _simplify(texts: pl.Series) -> pl.Series:
    from opencc import OpenCC

    convert = OpenCC("t2s").convert
    return pl.Series(texts.name, [text if text is None else convert(text) for text in texts], dtype=pl.String)
