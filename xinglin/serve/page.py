"""The page: its files with what the server knows filled in, and the headers that keep them harmless.

In: the files of ``static/``. Out: their bytes; in HTML ``{{disclaimer}}`` and ``{{label}}`` become the texts of the schema,
``{{english_disclaimer}}`` and ``{{english_label}}`` what the English frame shows in their place, and ``{{settings}}`` a JSON
block such as ``{"titles": ["…", …], "disclaimer": "…", "label": "AI 生成", "name": "demo", …}``.
"""

import gzip
import html
import json
from pathlib import Path
from typing import Any

from xinglin import __version__, schema
from xinglin.safety import pii

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PARTS = ("style.css", "frame.js", "app.js", "runs.js", "icon.svg")
FILES = {"/": "index.html", "/runs": "runs.html"} | {f"/{name}": name for name in PARTS}

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

# Chinese, and what the English frame shows: questions are sent in Chinese, since the emergency rules read nothing else.
EXAMPLES = (
    ("最近两周经常反酸、烧心，晚上躺下更明显，需要做什么检查？", "Heartburn for two weeks, worse lying down: which tests?"),
    ("孩子5岁，流清鼻涕、咳嗽三天，没有发烧，怎么护理？", "A child of 5, runny nose and cough for three days, no fever?"),
    ("体检发现血压150/95，没有不舒服，要不要马上吃药？", "Blood pressure 150/95 at a check-up, no complaints: medicine at once?"),
    ("久坐后腰痛，弯腰加重，腿不麻，应该怎么办？", "Back pain after sitting, worse on bending, no numb legs: what to do?"),
)
REASONS = (("不准确", "Not accurate"), ("不安全", "Not safe"), ("格式不对", "Wrong form"), ("太笼统", "Too general"))
ENGLISH = {
    "label": "AI-generated",
    "disclaimer": "Answers are AI-generated, for information only, and replace no doctor. "
    "Unwell: see a doctor; in an emergency call 120.",
}


def settings(name: str, demo: bool) -> dict[str, Any]:
    """What the page's script needs to know and must not spell itself."""
    known: dict[str, Any] = {"titles": schema.TITLES, "disclaimer": schema.DISCLAIMER, "label": schema.AI_LABEL}
    known |= {"examples": EXAMPLES, "reasons": REASONS, "english": ENGLISH, "placeholders": list(pii.PLACEHOLDERS.values())}
    return known | {"name": name, "version": __version__, "demo": demo}


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
    values = {"disclaimer": schema.DISCLAIMER, "label": schema.AI_LABEL}
    values |= {f"english_{key}": value for key, value in ENGLISH.items()}
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", html.escape(value))
    return text.replace("{{settings}}", block)
