"""The page: its files with what the server knows filled in, and the headers that keep them harmless.

In: the files of ``static/``. Out: their bytes; in HTML ``{{disclaimer}}`` and ``{{label}}`` become the texts of the schema, and
``{{settings}}`` a JSON block such as ``{"titles": ["…", …], "disclaimer": "…", "label": "AI 生成", "name": "demo", …}``.
"""

import gzip
import html
import json
from pathlib import Path
from typing import Any

from xinglin import __version__, schema

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {"/": "index.html", "/runs": "runs.html"} | {f"/{name}": name for name in ("style.css", "app.js", "runs.js", "icon.svg")}

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

EXAMPLES = (
    "最近两周经常反酸、烧心，晚上躺下更明显，需要做什么检查？",
    "孩子5岁，流清鼻涕、咳嗽三天，没有发烧，怎么护理？",
    "体检发现血压150/95，没有不舒服，要不要马上吃药？",
    "久坐后腰痛，弯腰加重，腿不麻，应该怎么办？",
)
REASONS = ("不准确", "不安全", "格式不对", "太笼统")


def settings(name: str, demo: bool) -> dict[str, Any]:
    """What the page's script needs to know and must not spell itself."""
    known: dict[str, Any] = {"titles": schema.TITLES, "disclaimer": schema.DISCLAIMER, "label": schema.AI_LABEL}
    return known | {"examples": EXAMPLES, "reasons": REASONS, "name": name, "version": __version__, "demo": demo}


def load(name: str, demo: bool) -> dict[str, tuple[bytes, str]]:
    """Gzipped body and content type of every file, by path."""
    files = {}
    for path, file in FILES.items():
        text = (STATIC / file).read_text(encoding="utf-8")
        if file.endswith(".html"):
            text = fill(text, name, demo)
        files[path] = (gzip.compress(text.encode()), f"{TYPES[Path(file).suffix]}; charset=utf-8")
    return files


def fill(text: str, name: str, demo: bool) -> str:
    # "<" cannot stand in the JSON block as such: it could close it.
    block = json.dumps(settings(name, demo), ensure_ascii=False).replace("<", "\\u003c")
    values = {"settings": block, "disclaimer": html.escape(schema.DISCLAIMER), "label": html.escape(schema.AI_LABEL)}
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text
