"""Exams: multiple-choice questions of any published file, asked in two ways, scored without guessing.

In: files of CMB-Exam, CMExam, MedQA-zh, CMMLU or C-Eval (a folder stands for all files in it). Out: per exam and mode the
accuracy of base and tuned, by subject, on all and on uncontaminated questions, and the share of unreadable outputs. One::

    Question(text="不属于第二信使的物质是", options={"A": "cAMP", "B": "cGMP", "C": "IP3", "D": "胰岛素"}, answer="D",
             subject="basic_medicine")

Mode "chat": the model answers, ``extract_choice`` reads the answer. Mode "likelihood": the letter with the highest probability as
first token of the answer (questions with one right option only). lm-evaluation-harness asks and marks, with the files in tasks/.
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

import polars as pl

from xinglin import schema
from xinglin.evaluate import summary

Both = tuple[Sequence[float], Sequence[float]]  # by question, of base and of tuned

LETTERS = "ABCDEFGH"
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
CHAT_TOKENS = 64
RUN = 30  # characters in a row shared with a training row make a question contaminated
SHORT = 8  # a whole question of fewer characters ("错误的是") says nothing without its options
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
    found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise ValueError(f"evaluate.exams: {path} is no file or folder of exam questions ({', '.join(SUFFIXES)})")
    return found


def read(path: Path) -> Exam:
    """All usable questions under a path. Raises ``ValueError`` where none is."""
    questions: list[Question] = []
    reasons: Counter[str] = Counter()
    for file, row in _joined([(source, row) for source in files(path) for row in _rows(source)]):
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


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one file; what is no row becomes an empty one, so that it is counted."""
    try:
        rows = _parse(path)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"evaluate.exams: {path} is not {path.suffix[1:]} ({' '.join(str(error).split())[:200]})") from None
    return [row if isinstance(row, dict) else {} for row in rows]


def _parse(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    lines = [line for line in text.split("\n") if line.strip()]
    if path.suffix == ".jsonl" or (lines and lines[0].startswith("{") and lines[0].rstrip().endswith("}")):
        return [json.loads(line) for line in lines]
    whole = json.loads(text)
    return whole if isinstance(whole, list) else [whole]


def _joined(rows: Sequence[tuple[Path, dict[str, Any]]]) -> list[tuple[Path, dict[str, Any]]]:
    """CMB publishes the answers of its test in a file of their own: rows without a question lend theirs by id."""
    keys = {row["id"]: row["answer"] for _, row in rows if _is_key(row)}
    return [(file, {"answer": keys.get(row.get("id")), **row}) for file, row in rows if not _is_key(row)]


def _is_key(row: Mapping[str, Any]) -> bool:
    return {"id", "answer"} <= row.keys() and not {"question", "Question"} & row.keys()


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
        for window in _windows(_plain(question.text)):
            windows.setdefault(window, []).append(index)
    lengths = sorted({len(window) for window in windows if len(window) >= SHORT})
    found: set[int] = set()
    for text in training:
        plain = _plain(text)
        for length in lengths:
            for start in range(len(plain) - length + 1):
                found.update(windows.get(plain[start : start + length], ()))
    return found


def _windows(plain: str) -> Iterator[str]:
    return (plain[start : start + RUN] for start in range(max(1, len(plain) - RUN + 1)))


def _plain(text: str) -> str:
    return re.sub(r"\W+", "", text)


# ---------------------------------------------------------------- scoring


def score(exam: Exam, mode: str, right: Both, unreadable: Both, dirty: set[int]) -> dict[str, Any]:
    """The figures of one exam in one mode; ``right`` and ``unreadable`` hold zeros and ones by question, of base and of tuned."""
    same = cases(exam.questions)
    row, unparseable = summary.conclude([summary.row(ACCURACY, *right, same), summary.row(UNPARSEABLE, *unreadable, same)])
    clean = [index for index in range(len(same)) if index not in dirty]
    return {
        "name": exam.name,
        "mode": mode,
        "row": row,
        "unparseable": unparseable if mode == "chat" else None,
        "clean": _clean_row(right, same, clean) if dirty and clean else None,
        "subjects": summary.by_group([question.subject for question in exam.questions], *right, same),
        "left_out": [*exam.left_out, f"{len(dirty)} 题与训练数据重合"],
    }


def _clean_row(right: Both, same: Sequence[str], clean: Sequence[int]) -> summary.Row:
    metric = summary.Metric("accuracy_clean", "正确率（除去与训练数据重合的题）", "rate", "higher")
    before, after = ([side[index] for index in clean] for side in right)
    return summary.conclude([summary.row(metric, before, after, [same[index] for index in clean])])[0]


def cases(questions: Sequence[Question]) -> list[str]:
    """A label for each question, the same for those of one case and for near-duplicates: they share ``RUN`` characters in a row
    (or all of a shorter question), directly or through others."""
    first: dict[str, int] = {}
    parent = list(range(len(questions)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, question in enumerate(questions):
        plain = _plain(question.text)
        whole = plain if len(plain) >= SHORT else f"{plain}{_plain(''.join(question.options.values()))}"
        for window in _windows(whole):
            parent[root(index)] = root(first.setdefault(window, index))
    return [str(root(index)) for index in range(len(questions))]


def single(exam: Exam) -> Exam:
    """The questions with one right option: the ones likelihood can score."""
    kept = [question for question in exam.questions if len(question.answer) == 1]
    dropped = len(exam.questions) - len(kept)
    return Exam(exam.name, kept, [*exam.left_out, f"{dropped} 道多选题未用"] if dropped else exam.left_out)


def without(exam: Exam, missing: set[int]) -> tuple[Exam, list[int]]:
    """The exam without the questions that could not be asked, which are counted, and the indices of the others."""
    kept = [index for index in range(len(exam.questions)) if index not in missing]
    left_out = [*exam.left_out, f"{len(missing)} 题超出模型上下文，未作答"] if missing else exam.left_out
    return Exam(exam.name, [exam.questions[index] for index in kept], left_out), kept
