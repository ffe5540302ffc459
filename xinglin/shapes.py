"""Shapes: what a row of a corpus may look like.

In: the parsed value of a row. Out: its turns, alternating, the user's first and the assistant's last::

    {"conversations": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}     also "messages", "dialogue"
    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}              ShareGPT
    {"instruction": …, "input": …, "output": …, "history": [[question, answer], …]}              Alpaca
    {"prompt": …, "completion": …}
    {"description": …, "QA_pairs": [{"question": …, "answer": …}, …]}                            a case with several questions
    {"title": …, "ask": …, "answer": …, "department": …}                                         any names through ``columns``

A system turn is left out: the one prompt of Xinglin is ``schema.messages``. Values that are lists are joined.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    **dict.fromkeys(("user", "human", "patient", "client", "questioner", "患者", "病人", "用户", "问"), USER),
    **dict.fromkeys(("assistant", "gpt", "doctor", "bot", "model", "chatgpt", "医生", "大夫", "助手", "答"), ASSISTANT),
    **dict.fromkeys(("system", "系统"), SYSTEM),
}
LISTS = ("conversations", "messages", "conversation", "dialogue", "dialog", "turns")
QUESTIONS = ("question", "ask", "instruction", "instruct", "prompt", "questions", "query", "问题", "提问", "患者提问", "q")
ANSWERS = ("answer", "output", "completion", "response", "answers", "reply", "回答", "答案", "医生回答", "a")
DEPARTMENTS = ("department", "cate1", "dept", "科室", "category")
TITLES = ("title", "标题")
INPUTS = ("input", "context")
IDS = ("id", "_id", "qid")


class Dialogue(NamedTuple):
    row: int
    turns: tuple[str, ...]
    department: str | None
    id: str | None


class Unreadable(NamedTuple):
    row: int
    reason: str
    raw: str


def dialogue(number: int, value: Any, columns: Mapping[str, str]) -> Dialogue | Unreadable:
    """The dialogue of a row, or why it has none."""
    if not isinstance(value, dict):
        return Unreadable(number, f"unreadable: holds a {type(value).__name__}, not an object", str(value)[:200])
    row = {str(key).strip().lower(): part for key, part in value.items()}
    found = next((name for name in LISTS if isinstance(row.get(name), list)), None)
    said = _listed(row[found]) if found and not columns else _columns(row, {k: v.strip().lower() for k, v in columns.items()})
    if isinstance(said, str):
        return Unreadable(number, f"unreadable: {said}", str(value)[:200])
    turns = _alternate(said)
    if not turns:
        return Unreadable(number, _missing(said), str(value)[:200])
    department = _text(row.get(columns.get("department", "").strip().lower()) or _first(row, DEPARTMENTS)) or None
    return Dialogue(number, turns, department, _text(_first(row, IDS)) or None)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def _text(value: Any) -> str:
    """A value as text; lists, also nested ones, are joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text, value)))
    return "" if value is None else str(value)


def _listed(parts: Sequence[Any]) -> list[tuple[str, str]] | str:
    """Role and text of every turn of a list, or the reason why it is no dialogue."""
    said = []
    for part in parts:
        if not isinstance(part, dict):
            return f"a turn is a {type(part).__name__}, not an object"
        name = str(part.get("role") or part.get("from") or part.get("speaker") or "")
        role = ROLES.get(name.strip().lower())
        if role is None:
            return f"a turn has the role {name!r}"
        content = part.get("content")
        said.append((role, _text(part.get("value") if content is None else content)))
    return said


def _columns(row: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str]] | str:
    """The turns of a row of columns: history, question (title and input joined to it), answer."""
    if isinstance(row.get("qa_pairs"), list) and not names:
        return _case(row)
    known = (set(QUESTIONS) | set(TITLES)) & set(row) or "question" in names
    if not known:
        return f"no question among the columns {', '.join(row)[:120]}; name them in clean.columns"
    for column in (names.get("question"), names.get("answer")):
        if column is not None and column not in row:
            return f"no column {column!r} among {', '.join(row)[:120]}; see clean.columns"
    question = _text(row[names["question"]] if "question" in names else _first(row, QUESTIONS)).strip()
    answer = _text(row[names["answer"]] if "answer" in names else _first(row, ANSWERS))
    title, extra = (_text(_first(row, parts)).strip() for parts in (TITLES, INPUTS))
    if "question" not in names:
        question = title if question in ("", "无") else question if title in question else f"{title}\n{question}"
        question = f"{question}\n{extra}" if extra and extra not in question else question
    return [*_history(row.get("history")), (USER, question), (ASSISTANT, answer)]


def _case(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The questions on one case; its description goes before the first."""
    description = _text(_first(row, ("description", "case", *TITLES))).strip()
    return [(USER, description), *_history(row["qa_pairs"])]


def _history(value: Any) -> list[tuple[str, str]]:
    said = []
    for pair in value if isinstance(value, list) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2:
            said += [(USER, _text(pair[0])), (ASSISTANT, _text(pair[1]))]
        elif isinstance(pair, dict):
            said += [(USER, _text(_first(pair, QUESTIONS))), (ASSISTANT, _text(_first(pair, ANSWERS)))]
    return said


def _alternate(said: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Turns that alternate from a user to an assistant: neighbours of one role joined, what is before or after left out."""
    turns: list[tuple[str, str]] = []
    for role, text in said:
        if role == SYSTEM or not text or text.isspace():
            continue
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n{text}")
        elif turns or role == USER:
            turns.append((role, text))
    if turns and turns[-1][0] == USER:
        turns.pop()
    return tuple(text for _, text in turns)


def _missing(said: Sequence[tuple[str, str]]) -> str:
    if not any(role == USER and text.strip() for role, text in said):
        return "no_question"
    return "empty_answer" if any(role == ASSISTANT for role, _ in said) else "no_answer"
