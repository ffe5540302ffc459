"""What goes around the model's text: the alert before it, its sections while it comes, the labels after it.

In: the user's turns and the text so far. Out: the field ``xinglin`` of every answer; of a stream, the first chunk has alerts,
label, disclaimer and metadata (without the digest), so that an answer that is stopped has them::

    {"alerts": [{"level": "A", "rule": "heart-attack", "message": "可能是心肌梗死等急症。请立即拨打120……"}],
     "sections": {title: "…", …}, "preamble": "", "complete": true, "problems": [],
     "cautions": [{"kind": "dose", "span": "3g", "section": "…", "message": "“3g”可能超出常用剂量……"}],
     "label": "AI 生成", "disclaimer": "…", "aigc": {"Label": "1", "ContentProducer": "Xinglin 0.1.0 demo", …}}
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xinglin import __version__, schema
from xinglin.safety import lint
from xinglin.safety.triage import Alert, every
from xinglin.serve.protocol import Head, dumps

# A line this short may still turn out to be a title; it is shown when it is longer or ended.
TITLE_LENGTH = 14
LONG = 4000  # characters that the rules read in about 50 ms of one core

Patch = tuple[str, int, str]

CAUTIONS = {
    "unknown_drug": "没有查到“{}”这个药名，请勿自行购买或服用。",
    "dose": "“{}”可能超出常用剂量，请先向医师或药师核对。",
    "contraindication": "您提到的情况可能不宜使用“{}”，用前请先问医师。",
    "invented_result": "“{}”是您没有提供过的检查结果，请勿当真。",
    "certainty": "“{}”说得过于肯定；结论要由医生面诊后作出。",
    "doctor": "“{}”不实：回答由 AI 生成，写它的不是医生。",
    "prescription": "“{}”像处方或停药指令，AI 不能开处方；用药和停药都要由医生决定。",
    "contradiction": "“{}”前后说法不一致，请以医生的意见为准。",
}


async def alerts(questions: Sequence[str]) -> list[Alert]:
    """The red flags in all turns of the user, newest first. Long texts are read in a thread: they must not hold up others."""
    if sum(map(len, questions)) > LONG:
        return await asyncio.to_thread(every, questions)
    return every(questions)


def fixed_text(found: Sequence[Alert]) -> str:
    """What stands before the model's first word: the emergency text of levels A and B."""
    return "".join(f"{alert.message}\n\n" for alert in found if alert.level in "AB")


def as_json(text: str) -> str:
    """The three sections as a JSON object, always with its three keys."""
    sections = schema.Answer.parse(text).sections
    return dumps({title: sections.get(title, "") for title in schema.TITLES})


def describe(found: Sequence[Alert]) -> dict[str, Any]:
    return {"alerts": [asdict(alert) for alert in found]}


def cautions(text: str, questions: Sequence[str]) -> list[dict[str, str]]:
    """What the rules find wrong in an answer, each place once, with the section it stands in (empty: before the first)."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for finding in lint.check(text, "\n".join(questions)):
        sections = schema.Answer.parse(text[: finding.end]).sections
        section = list(sections)[-1] if sections else ""
        entry = {
            "kind": finding.kind,
            "span": finding.span,
            "section": section,
            "message": CAUTIONS[finding.kind].format(finding.span),
        }
        found.setdefault((finding.kind, finding.span), entry)
    return list(found.values())


def opening(head: Head, found: Sequence[Alert]) -> dict[str, Any]:
    """The field ``xinglin`` of an answer that has no text yet."""
    return describe(found) | _labels(aigc(head.model, head.id))


def _labels(metadata: dict[str, str]) -> dict[str, Any]:
    return {"label": schema.AI_LABEL, "disclaimer": schema.DISCLAIMER, "aigc": metadata}


def extension(head: Head, found: Sequence[Alert], text: str, shown: str, questions: Sequence[str]) -> dict[str, Any]:
    """The field ``xinglin`` of a whole answer; ``text`` is the model's own, ``shown`` all that was sent as content."""
    answer = schema.Answer.parse(text)
    problems = schema.check(text)
    written = {
        "sections": dict(answer.sections),
        "preamble": answer.preamble,
        "complete": not problems,
        "problems": problems,
        "cautions": cautions(text, questions),
    }
    return describe(found) | written | _labels(aigc(head.model, head.id, hashlib.sha256(shown.encode()).hexdigest()))


def aigc(model: str, produce_id: str, digest: str = "") -> dict[str, str]:
    """The metadata of GB 45438-2025: Label "1" says the content is machine-made; ReservedCode1 is the SHA-256 of the content."""
    return {
        "Label": "1",
        "ContentProducer": f"Xinglin {__version__} {model}",
        "ProduceID": produce_id,
        "ReservedCode1": digest,
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }


@dataclass
class Sections:
    """The sections of a text that is still coming, as patches (title, keep, text): keep so many UTF-16 units, then add the text.

    The title is empty for text that stands before the first title. UTF-16, because browsers count so.
    """

    text: str = ""
    shown: dict[str, str] = field(default_factory=dict)

    def feed(self, piece: str) -> list[Patch]:
        self.text += piece
        whole, _, last = self.text.rpartition("\n")
        return self._patches(whole if len(last) <= TITLE_LENGTH else self.text)

    def finish(self) -> list[Patch]:
        return self._patches(self.text)

    def _patches(self, text: str) -> list[Patch]:
        answer = schema.Answer.parse(text)
        now = {"": answer.preamble, **answer.sections}
        pairs = {title: (self.shown.get(title, ""), now.get(title, "")) for title in {**self.shown, **now}}
        self.shown = now
        return [patch(title, before, after) for title, (before, after) in pairs.items() if before != after]


def patch(title: str, before: str, after: str) -> Patch:
    same = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        same += 1
    return title, len(after[:same].encode("utf-16-le")) // 2, after[same:]
