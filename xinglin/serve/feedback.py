"""What users say about answers, kept in SQLite or any database SQLAlchemy knows.

In: a rating or a blind vote from the page. Out: a row; all rows as JSON Lines, ready for preference data::

    {"id": 3, "created": "2026-11-22T04:00:00+00:00", "vote": "down", "reasons": ["不准确"], "comment": "", "model": "demo",
     "fingerprint": "da4af705afffad5a", "answer_id": "chatcmpl-…", "question": "…", "answer": "…", "other_model": "",
     "other_answer": ""}

A vote is "up" or "down" for one answer; "first", "second", "tie" or "neither" between ``answer`` and ``other_answer``.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import JSON, Column, Engine, Integer, MetaData, String, Table, Text, create_engine, delete, insert, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from xinglin.safety import pii

TABLE = Table(
    "feedback",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("created", String(32), nullable=False),
    Column("vote", String(8), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("comment", Text, nullable=False),
    Column("model", String(200), nullable=False),
    Column("fingerprint", String(200), nullable=False),
    Column("answer_id", String(64), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("other_model", String(200), nullable=False),
    Column("other_answer", Text, nullable=False),
)


class Feedback(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    vote: Literal["up", "down", "first", "second", "tie", "neither"]
    reasons: list[str] = Field(default=[], max_length=10)
    comment: str = Field(default="", max_length=2000)
    model: str = Field(max_length=200)
    answer_id: str = Field(default="", max_length=64)
    question: str = Field(max_length=20000)
    answer: str = Field(max_length=50000)
    other_model: str = Field(default="", max_length=200)
    other_answer: str = Field(default="", max_length=50000)


def read(value: dict[str, Any]) -> Feedback:
    """Raises ``ValueError`` that names the field."""
    try:
        return Feedback.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def open_store(url: str, folder: Path) -> Engine:
    """The database at ``url``, else ``feedback.sqlite`` in the folder of the runs. Raises ``ValueError`` in one line."""
    folder.mkdir(parents=True, exist_ok=True)
    address = url or f"sqlite:///{folder / 'feedback.sqlite'}"
    try:
        store = create_engine(address)
        TABLE.metadata.create_all(store)
    except (ArgumentError, NoSuchModuleError, SQLAlchemyError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"serve.database={url}: {reason}; such as sqlite:///feedback.sqlite or postgresql+psycopg://…") from None
    return store


def add(store: Engine, given: Feedback, fingerprint: str) -> int:
    """Keep one rating, personal data in the question masked; returns its id, with which it can be taken back."""
    values = given.model_dump() | {"question": pii.mask(given.question).text, "comment": pii.mask(given.comment).text}
    values |= {"created": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": fingerprint}
    with store.begin() as connection:
        result = connection.execute(insert(TABLE).values(values))
        return int((result.inserted_primary_key or (0,))[0])


def remove(store: Engine, number: int) -> bool:
    with store.begin() as connection:
        return connection.execute(delete(TABLE).where(TABLE.c.id == number)).rowcount == 1


def rows(store: Engine) -> Iterator[dict[str, Any]]:
    """All ratings, oldest first."""
    with store.connect() as connection:
        for row in connection.execute(select(TABLE).order_by(TABLE.c.id)):
            yield dict(row._mapping)
