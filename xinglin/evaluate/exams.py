"""Exams: multiple-choice questions of any published file, asked in two ways, scored without guessing.

In: files of CMB-Exam, CMExam, MedQA-zh, CMMLU or C-Eval (a folder stands for all files in it). Out: per exam and mode the
accuracy of base and tuned, by subject, on all and on uncontaminated questions, and the share of unreadable outputs. One::

    Question(text="不属于第二信使的物质是", options={"A": "cAMP", "B": "cGMP", "C": "IP3", "D": "胰岛素"}, answer="D",
             subject="basic_medicine")

Mode "chat": the model answers, ``extract_choice`` reads the answer. Mode "likelihood": the letter with the highest probability as
first token of the answer (questions with one right option only), as lm-evaluation-harness scores with the files in tasks/.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin import schema
from xinglin.evaluate import summary
from xinglin.evaluate.choice import extract_choice

LETTERS = "ABCDEFGH"
CHAT_TOKENS = 64
RUN = 30  # characters in a row shared with a training row make a question contaminated
ACCURACY = summary.Metric("accuracy", "正确率", "rate", "higher")
UNPARSEABLE = summary.Metric("unparseable", "无法判读", "rate", "lower")


@dataclass(frozen=True)
class Question:
    """``answer`` holds the right letters in alphabetical order; ``options`` are by letter, in order."""

    text: str
    options: Mapping[str, str]
    answer: str
    subject: str

    @property
    def prompt(self) -> list[schema.Message]:
        return schema.exam_messages(self.text, self.options)


@dataclass(frozen=True)
class Exam:
    """The questions of one file or folder; ``left_out`` says how many rows were not usable and why."""

    name: str
    questions: list[Question]
    left_out: list[str]


# ---------------------------------------------------------------- reading


def files(path: Path) -> list[Path]:
    """The files of an exam. Raises ``ValueError`` where there is none."""
    found = sorted(p for p in path.rglob("*") if p.suffix in {".csv", ".json", ".jsonl"}) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise ValueError(f"evaluate.exams: {path} is no file or folder of exam questions (.csv, .json, .jsonl)")
    return found


def read(path: Path) -> Exam:
    """All usable questions under a path. Raises ``ValueError`` where none is."""
    questions: list[Question] = []
    reasons: Counter[str] = Counter()
    for file in files(path):
        for row in _rows(file):
            question = _question(row, file.stem.removesuffix("_val").removesuffix("_dev").removesuffix("_test"))
            if isinstance(question, str):
                reasons[question] += 1
            else:
                questions.append(question)
    if not questions:
        raise ValueError(f"evaluate.exams: {path} has no usable question ({', '.join(reasons) or 'no row'})")
    return Exam(
        f"{path.resolve().parent.name}/{path.stem}", questions, [f"{count} 题未用：{reason}" for reason, count in reasons.items()]
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030")
    try:
        if path.suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text))
        elif text.lstrip().startswith("["):
            yield from json.loads(text)
        else:
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except ValueError as error:
        raise ValueError(f"evaluate.exams: {path} is not {path.suffix[1:]} ({error})") from None


def _question(row: Mapping[str, Any], file: str) -> Question | str:
    """A row as a question, or why it cannot be one (in Chinese, for the report)."""
    fields = {str(key).lower(): value for key, value in row.items()}
    options = _options(fields)
    answer = "".join(sorted(set(re.sub(r"[^A-Ha-h]", "", str(fields.get("answer_idx") or fields.get("answer") or "")).upper())))
    if not str(fields.get("question") or "").strip():
        return "没有题干"
    if len(options) < 2:
        return "缺少选项"
    if not answer or str(fields.get("answer")).lower() == "nan" or not set(answer) <= set(options):
        return "没有答案或答案不在选项中"
    subject = next(
        (str(fields[key]) for key in ("exam_subject", "clinical department", "subject", "meta_info") if fields.get(key)), file
    )
    return Question(str(fields["question"]).strip(), options, answer, subject)


def _options(fields: Mapping[str, Any]) -> dict[str, str]:
    """Options by letter: from a dictionary, columns A, B, C …, or one text "A …\\nB …" (CMExam writes the two characters)."""
    given = fields.get("options", fields.get("option"))
    if isinstance(given, str):
        lines = re.split(r"\\n|\n", given)
        pairs = [(line.strip()[:1], line.strip()[1:].lstrip(" .、．:：")) for line in lines if line.strip()]
    else:
        source = (
            given if isinstance(given, Mapping) else {key.upper(): fields.get(key) for key in LETTERS.lower() if key in fields}
        )
        pairs = [(letter, str(source[letter] or "")) for letter in sorted(source)]
    return {letter: text.strip() for letter, text in pairs if letter in LETTERS and letter and text.strip()}


# ---------------------------------------------------------------- contamination


def contaminated(questions: Sequence[Question], training: Iterable[str]) -> set[int]:
    """Indices of questions that share ``RUN`` characters in a row (or all of a shorter one) with a training text."""
    windows: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        plain = _plain(question.text)
        for start in range(max(1, len(plain) - RUN + 1)):
            windows.setdefault(plain[start : start + RUN], []).append(index)
    lengths = sorted({len(window) for window in windows if len(window) >= 8})
    found: set[int] = set()
    for text in training:
        plain = _plain(text)
        for length in lengths:
            for start in range(len(plain) - length + 1):
                found.update(windows.get(plain[start : start + length], ()))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\W+", "", text)


# ---------------------------------------------------------------- scoring


def most_likely(question: Question, scores: Sequence[float]) -> str:
    """The letter of the highest score; ``scores`` are those of the letters of ``LETTERS`` in order."""
    return max(question.options, key=lambda letter: scores[LETTERS.index(letter)])


def score(exam: Exam, mode: str, base: Sequence[str | None], tuned: Sequence[str | None], dirty: set[int]) -> dict[str, Any]:
    """The figures of one exam in one mode; ``base`` and ``tuned`` are the letters read from the outputs, None = unparseable."""
    before, after = (_right(exam.questions, side) for side in (base, tuned))
    copies = [_plain(question.text) for question in exam.questions]
    missing = summary.row(UNPARSEABLE, [float(one is None) for one in base], [float(one is None) for one in tuned], copies)
    row, unparseable = summary.conclude([summary.row(ACCURACY, before, after, copies), missing])
    clean = [index for index in range(len(copies)) if index not in dirty]
    return {
        "name": exam.name,
        "mode": mode,
        "row": row,
        "unparseable": unparseable if mode == "chat" else None,
        "clean": _clean_row(before, after, copies, clean) if dirty and clean else None,
        "subjects": summary.by_group([question.subject for question in exam.questions], before, after),
        "left_out": [*exam.left_out, f"{len(dirty)} 题与训练数据重合"],
    }


def _right(questions: Sequence[Question], found: Sequence[str | None]) -> list[float]:
    return [float(letters == question.answer) for letters, question in zip(found, questions, strict=True)]


def _clean_row(base: Sequence[float], tuned: Sequence[float], copies: Sequence[str], clean: Sequence[int]) -> summary.Row:
    metric = summary.Metric("accuracy_clean", "正确率（除去与训练数据重合的题）", "rate", "higher")
    before, after = [base[index] for index in clean], [tuned[index] for index in clean]
    return summary.conclude([summary.row(metric, before, after, [copies[index] for index in clean])])[0]


def single(exam: Exam) -> Exam:
    """The questions with one right option: the ones likelihood can score."""
    kept = [question for question in exam.questions if len(question.answer) == 1]
    dropped = len(exam.questions) - len(kept)
    return Exam(exam.name, kept, [*exam.left_out, f"{dropped} 道多选题未用"] if dropped else exam.left_out)


def read_choice(question: Question, text: str) -> str | None:
    return extract_choice(text, "".join(question.options))
