"""Shapes: what a row of a corpus may look like.

In: the parsed value of a row. Out: its turns, alternating, the user's first and the assistant's last::

    {"conversations": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}     also "messages", "dialogue"
    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}              ShareGPT
    {"instruction": …, "input": …, "output": …, "history": [[question, answer], …]}              Alpaca
    {"prompt": …, "completion": …}
    {"description": …, "QA_pairs": [{"question": …, "answer": …}, …]}                            a case with several questions
    {"title": …, "ask": …, "answer": …, "department": …}                                         any names through ``columns``
    {"prompt": …, "chosen": …, "rejected": …}       two answers: texts, turns or whole dialogues; the question in any shape above
    {"prompt": …, "completion": …, "label": false}  a good or a bad answer; also "kto_tag"

A system turn is left out: the one prompt of Xinglin is ``schema.messages``. Values that are lists are joined.
"""

import functools
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
ANSWERS = ("answer", "output", "completion", "response", "answers", "reply", "回答", "答案", "医生回答", "a", "chosen")
DEPARTMENTS = ("department", "cate1", "dept", "科室", "category")
TITLES = ("title", "标题")
INPUTS = ("input", "context")
IDS = ("id", "_id", "qid")


class Dialogue(NamedTuple):
    row: int
    turns: tuple[str, ...]
    department: str | None
    id: str | None
    rejected: str | None = None  # a worse answer than the last turn
    label: bool | None = None  # whether the last turn is a good answer, where that is said


class Unreadable(NamedTuple):
    row: int
    reason: str
    raw: str


class Plan(NamedTuple):
    """The keys of a row, as spelt there, by what they hold."""

    lists: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    titles: tuple[str, ...]
    inputs: tuple[str, ...]
    departments: tuple[str, ...]
    ids: tuple[str, ...]
    histories: tuple[str, ...]
    cases: tuple[str, ...]
    descriptions: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    labels: tuple[str, ...]
    missing: str  # why rows with these keys hold no dialogue, unless they have a list of turns


@functools.lru_cache(1024)
def _plan(keys: tuple[str, ...], named: tuple[tuple[str, str], ...]) -> Plan:
    """Which keys of a row hold what; ``named`` are the columns of the recipe, which take the place of the usual names."""
    spelt = {str(key).strip().lower(): key for key in reversed(keys)}
    columns = {part: name.strip().lower() for part, name in named}

    def pick(part: str, usual: Sequence[str]) -> tuple[str, ...]:
        names = (columns[part],) if part in columns else usual
        return tuple(spelt[name] for name in names if name in spelt)

    title, extra = ((), ()) if "question" in columns else (pick("title", TITLES), pick("input", INPUTS))
    plan = Plan(
        () if columns else pick("turns", LISTS),
        pick("question", QUESTIONS),
        pick("answer", ANSWERS),
        title,
        extra,
        pick("department", DEPARTMENTS),
        pick("id", IDS),
        pick("history", ("history",)),
        () if columns else pick("case", ("qa_pairs",)),
        pick("description", ("description", "case", *TITLES)),
        pick("chosen", ("chosen",)),
        pick("rejected", ("rejected",)),
        pick("label", ("label", "kto_tag")),
        "",
    )
    absent = [name for part, name in columns.items() if part in ("question", "answer") and name not in spelt]
    seen = ", ".join(map(str, keys))[:120]
    if absent:
        return plan._replace(missing=f"no column {absent[0]!r} among {seen}; see clean.columns")
    if not (plan.questions or plan.titles or plan.cases):
        return plan._replace(missing=f"no question among the columns {seen}; name them in clean.columns")
    return plan


def dialogue(number: int, value: Any, columns: Mapping[str, str]) -> Dialogue | Unreadable:
    """The dialogue of a row, or why it has none."""
    if not isinstance(value, dict):
        return Unreadable(number, f"unreadable: holds a {type(value).__name__}, not an object", str(value)[:200])
    plan = _plan(tuple(value), tuple(columns.items()) if columns else ())
    paired = plan.chosen and _first(value, plan.rejected) is not None
    said, worse = _pair(value, plan) if paired else (_asked(value, plan), None)
    if isinstance(said, str):
        return Unreadable(number, f"unreadable: {said}", str(value)[:200])
    turns = _alternate(said)
    if not turns:
        return Unreadable(number, _missing(said), str(value)[:200])
    department, own = (_text(_first(value, names)) or None for names in (plan.departments, plan.ids))
    label = next((value[name] for name in plan.labels if isinstance(value[name], bool)), None)
    return Dialogue(number, turns, department, own, worse, label)


def _asked(value: Mapping[str, Any], plan: Plan) -> list[tuple[str, str]] | str:
    """The turns of a row, from its list of turns, its columns, or columns that hold turns."""
    listed = next((value[name] for name in plan.lists if isinstance(value[name], list)), None)
    if listed is not None or plan.missing:
        return plan.missing if listed is None else _listed(listed)
    question = _first(value, plan.questions)
    if not (isinstance(question, list) and isinstance(question[0], dict)):
        return _columns(value, plan)
    asked, told = _listed(question), _said(_first(value, plan.answers), ASSISTANT)
    if isinstance(asked, str) or isinstance(told, str):
        return asked if isinstance(asked, str) else told
    return [*asked, *told]


def _pair(value: Mapping[str, Any], plan: Plan) -> tuple[list[tuple[str, str]] | str, str | None]:
    """The turns with the better answer, and the worse answer to the same."""
    better, worse = (_said(_first(value, names), ASSISTANT) for names in (plan.chosen, plan.rejected))
    if isinstance(better, str) or isinstance(worse, str):
        return (better if isinstance(better, str) else str(worse)), None
    before: list[tuple[str, str]] | str = []
    if not any(role == USER for role, _ in better):
        before = _asked(value, plan._replace(answers=()))
    if isinstance(before, str):
        return before, None
    turns, other = _alternate([*before, *better]), _alternate([*before, *worse])
    if turns[:-1] != other[:-1]:
        return "chosen and rejected do not answer the same question", None
    return [*before, *better], other[-1] if other else None


def _said(value: Any, role: str) -> list[tuple[str, str]] | str:
    """A value that is a text of ``role``, a turn or a list of turns."""
    turns = [value] if isinstance(value, dict) else value
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return _listed(turns)
    return [(role, _text(value))]


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if row[name] not in (None, "", []):
            return row[name]
    return None


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


def _columns(row: Mapping[str, Any], plan: Plan) -> list[tuple[str, str]]:
    """The turns of a row of columns: history, question (title and input joined to it), answer."""
    pairs = next((row[name] for name in plan.cases if isinstance(row[name], list)), None)
    if pairs is not None:
        return [(USER, _text(_first(row, plan.descriptions)).strip()), *_history(pairs)]
    question, answer = _text(_first(row, plan.questions)).strip(), _text(_first(row, plan.answers))
    title = _text(_first(row, plan.titles)).strip() if plan.titles else ""
    extra = _text(_first(row, plan.inputs)).strip() if plan.inputs else ""
    if title and title not in question:
        question = title if question in ("", "无") else f"{title}\n{question}"
    if extra and extra not in question:
        question = f"{question}\n{extra}"
    said = _history(_first(row, plan.histories)) if plan.histories else []
    return [*said, (USER, question), (ASSISTANT, answer)]


def _history(value: Any) -> list[tuple[str, str]]:
    said = []
    for pair in value if isinstance(value, list) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2:
            said += [(USER, _text(pair[0])), (ASSISTANT, _text(pair[1]))]
        elif isinstance(pair, dict):
            plan = _plan(tuple(pair), ())
            said += [(USER, _text(_first(pair, plan.questions))), (ASSISTANT, _text(_first(pair, plan.answers)))]
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
