"""Batches: everything that is done with a row alone, for thousands of rows at a time.

In: a frame of rows as read (``SCHEMA``). Out: the same rows, normalised, judged and masked; ``reason`` is null for a good row::

    row=17  text="我叫[姓名1]，胃疼怎么办？\\x1e先查明原因……"  department="消化内科"  id=null  reason=null  kinds="name"

A pure function of the frame and the options, so that it gives the same rows in one process and on a cluster.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from xinglin.config import Clean
from xinglin.data import filters
from xinglin.data.benchmarks import Benchmarks
from xinglin.data.normalise import TURN, normalise
from xinglin.safety import pii
from xinglin.shapes import Dialogue, Unreadable

SCHEMA = {"row": pl.Int64, "text": pl.String, "department": pl.String, "id": pl.String, "reason": pl.String,
          "rejected": pl.String, "label": pl.Boolean}  # fmt: skip


class Options(NamedTuple):
    clean: Clean
    benchmarks: Benchmarks


def frame(rows: Sequence[Dialogue | Unreadable]) -> pl.DataFrame:
    """Rows as read, turns joined; of an unreadable one the reason and its beginning."""
    columns = zip(*map(_values, rows), strict=True)
    return pl.DataFrame(dict(zip(SCHEMA, columns, strict=True)) if rows else None, schema=SCHEMA)


def _values(row: Dialogue | Unreadable) -> tuple[int, str, str | None, str | None, str | None, str | None, bool | None]:
    if isinstance(row, Dialogue):
        worse = row.rejected and row.rejected.replace(TURN, "")
        return row.row, _joined(row.turns), row.department, row.id, None, worse, row.label
    return row.row, row.raw, None, None, row.reason, None, None


def _joined(turns: Sequence[str]) -> str:
    text = TURN.join(turns)
    return text if text.count(TURN) == len(turns) - 1 else TURN.join(turn.replace(TURN, "") for turn in turns)


def prepare(rows: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Normalise, filter, compare with the benchmarks, mask."""
    readable = pl.col("reason").is_null()
    good = rows.filter(readable).with_columns(normalise(pl.col("text"), options.clean.simplified))
    good = _turns_judged(good)
    turns = pl.col("text").str.split(TURN)
    good = good.with_columns(question=turns.list.get(-2), answer=turns.list.get(-1))
    found = filters.reasons(options.clean.min_chars, options.clean.max_chars)
    good = _judged_worse(good.with_columns(reason=pl.coalesce("reason", found)), options.clean)
    good = options.benchmarks.mark(good)
    done = pl.concat([good.select(list(SCHEMA)), rows.filter(~readable)]).sort("row")
    return masked(done) if options.clean.mask else done.with_columns(kinds=pl.lit(""))


def _turns_judged(good: pl.DataFrame) -> pl.DataFrame:
    """Dialogues of several answers without the thanks at their end; the first answer that no row may hold is their reason.

    Every answer of a dialogue is trained on, so each is judged; only the last must be an answer, greetings may stand before it.
    """
    text, last = pl.col("text"), pl.col("place") == pl.col("place").max().over("row")
    several = text.str.count_matches(TURN, literal=True) > 1
    dialogues = good.filter(several)
    if dialogues.is_empty():
        return good
    turns = dialogues.select("row", "rejected", turn=text.str.split(TURN)).explode("turn")
    turns = turns.with_columns(place=pl.int_range(pl.len()).over("row"))
    answers = turns.filter(pl.col("place") % 2 == 1)
    # Behind a pair's last question stands its worse answer, too: there nothing is taken away.
    spoken = ~filters.courtesy(pl.col("turn")) | (pl.col("place") == 1) | pl.col("rejected").is_not_null()
    ends = answers.filter(spoken).group_by("row").agg(end=pl.col("place").max())
    answers = answers.join(ends, on="row").filter(pl.col("place") <= pl.col("end"))
    reasons = answers.filter(~last).with_columns(reason=filters.unfit(pl.col("turn"))).filter(pl.col("reason").is_not_null())
    first = reasons.group_by("row", maintain_order=True).agg(pl.col("reason").first())
    dialogues = dialogues.drop("reason").join(first, on="row", how="left").join(ends, on="row")
    dialogues = dialogues.with_columns(text=text.str.split(TURN).list.head(pl.col("end") + 1).list.join(TURN))
    return pl.concat([good.filter(~several), dialogues.select(good.columns)]).sort("row")


def _judged_worse(good: pl.DataFrame, clean: Clean) -> pl.DataFrame:
    """The worse answers of pairs normalised and judged like the better ones; a pair is unfit where either answer is."""
    if good["rejected"].null_count() == len(good):
        return good
    paired = pl.col("rejected").is_not_null()
    pairs = good.filter(paired).with_columns(rejected=normalise(pl.col("rejected"), clean.simplified))
    worse = filters.reasons(clean.min_chars, clean.max_chars) + ": of the rejected answer"
    same = pl.when(pl.col("answer") == pl.col("rejected")).then(pl.lit("same_answers"))
    judged = pairs.with_columns(answer=pl.col("rejected")).with_columns(worse=worse)["worse"]
    return pl.concat([good.filter(~paired), pairs.with_columns(reason=pl.coalesce("reason", judged, same))]).sort("row")


def masked(rows: pl.DataFrame) -> pl.DataFrame:
    """Personal data replaced, its kinds listed in ``kinds``, one word for each datum; rejected rows are masked too.

    The worse answer of a pair is read behind its dialogue, so that a number said in both is one placeholder.
    """
    if rows["rejected"].null_count() == len(rows):
        return _masked(rows)
    paired, turns = pl.col("rejected").is_not_null(), pl.col("text").str.split(TURN)
    rows = rows.with_columns(text=pl.concat_str("text", "rejected", separator=TURN, ignore_nulls=True))
    done = _masked(rows)
    before = turns.list.head(turns.list.len() - 1).list.join(TURN)
    return done.with_columns(
        text=pl.when(paired).then(before).otherwise("text"), rejected=pl.when(paired).then(turns.list.last())
    )


def _masked(rows: pl.DataFrame) -> pl.DataFrame:
    suspect = pl.any_horizontal(pl.col("text").str.contains(trigger) for trigger in pii.TRIGGERS)
    found = rows.filter(suspect).with_columns(pl.col("text").map_batches(_mask, return_dtype=MASKED).alias("masked"))
    found = found.with_columns(text=pl.col("masked").struct["text"], kinds=pl.col("masked").struct["kinds"]).drop("masked")
    return pl.concat([rows.filter(~suspect).with_columns(kinds=pl.lit("")), found]).sort("row")


MASKED = pl.Struct({"text": pl.String, "kinds": pl.String})


def _mask(texts: pl.Series) -> pl.Series:
    results = [pii.mask(text) for text in texts]
    return pl.DataFrame(
        {
            "text": [result.text for result in results],
            "kinds": [" ".join(kind for _, _, kind in result.spans) for result in results],
        },
        schema={"text": pl.String, "kinds": pl.String},
    ).to_struct(texts.name)
