"""Personal data: found in Chinese text and replaced by placeholders."""

import re
from typing import NamedTuple


class Masked(NamedTuple):
    text: str
    spans: list[tuple[int, int, str]]


_THIN = re.compile(
    r"(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)|(?P<id_card>(?<!\d)\d{17}[\dXx](?!\d))|(?P<mobile>(?<!\d)1[3-9]\d{9}(?!\d))"
    r"|(?P<wechat>(?<=微信)号?[:： ]*[A-Za-z][\w-]{5,19})|(?P<qq>(?<=QQ)[:： ]*\d{5,11})",
    re.ASCII,
)


def mask(text: str) -> Masked:
    spans = [(match.start(), match.end(), str(match.lastgroup)) for match in _THIN.finditer(text)]
    parts, last = [], 0
    for start, end, kind in spans:
        parts += [text[last:start], f"[{kind}]"]
        last = end
    return Masked("".join(parts) + text[last:], spans)
