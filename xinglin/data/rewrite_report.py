"""The report of a rewrite: one self-contained Chinese page and the same figures as JSON.

In: the journal. Out: ``report.json`` and ``report.html``::

    {"rows": 10000, "states": {"accepted": 9120, …}, "rejected": {"unfaithful: new drug": 41, …}, "price": 1.38, …}
"""

import html
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.config import Rewrite as Settings
from xinglin.data import journal as journals
from xinglin.data.journal import ACCEPTED, FAILED, PASSED, PENDING, REJECTED, Summary
from xinglin.data.rewrite_job import finished_text
from xinglin.records import Record

SAMPLES = 20
NAMES = {
    ACCEPTED: "已改写",
    PASSED: "原本完整，直接通过",
    REJECTED: "未通过，见 rejected.jsonl",
    FAILED: "失败，再次运行会重试",
    PENDING: "尚未发送",
    "not in three sections": "不是三部分，已标记",
}
STYLE = """body{font:16px/1.7 system-ui,"Noto Sans SC","PingFang SC","Microsoft YaHei",sans-serif;
max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c2a25;background:#fbfcfb}h1,h2{color:#0b5d46}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;width:100%}
th,td{border:1px solid #cfdcd6;padding:.35rem .7rem;text-align:left;vertical-align:top}th{background:#eaf3ef}
td.n{text-align:right;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;font:inherit;margin:0}.half{width:50%}"""


def write(folder: Path, source: Path, path: Path, settings: Settings) -> list[Path]:
    """Write both files from the journal at ``path``; ``source`` gives the samples their text before."""
    connection = journals.read_only(path)
    facts = figures(connection, settings)
    samples = _samples(connection, source)
    connection.close()
    return _write(folder, facts, samples)


def write_counts(folder: Path, states: dict[str, int]) -> list[Path]:
    """The report of a run without an endpoint: only counts."""
    return _write(folder, {"rows": sum(states.values()), "states": states}, [])


def _write(folder: Path, facts: dict[str, Any], samples: list[tuple[Record, str, str]]) -> list[Path]:
    outputs = [folder / "report.json", folder / "report.html"]
    records.write_json(outputs[0], facts)
    records.write_text(outputs[1], page(facts, samples))
    return outputs


def figures(connection: sqlite3.Connection, settings: Settings) -> dict[str, Any]:
    """Everything the report states, as JSON."""
    found = journals.summary(connection)
    return {
        "rows": found.rows,
        "states": found.states,
        "model": settings.model,
        "rejected": _reasons(connection, REJECTED),
        "failed": _reasons(connection, FAILED),
        "findings": _findings(connection),
        "retries": _retries(connection),
        "judge": dict(
            connection.execute("SELECT judge, count(*) FROM row WHERE current = 1 AND judge != '' GROUP BY judge").fetchall()
        ),
        "tokens": {"prompt": found.prompt_tokens, "cached": found.cached_tokens, "completion": found.completion_tokens},
        "price": round(found.price, 6) if settings.prices else None,
        "lost_price": round(found.lost_price, 6) if settings.prices else None,
        "price_per_accepted_row": _per_row(found) if settings.prices else None,
        "latency": _latency(connection),
    }


def _per_row(found: Summary) -> float | None:
    return round(found.price / found.states[ACCEPTED], 6) if found.states[ACCEPTED] else None


def short(reason: str) -> str:
    """The reason without the words it was found at: "unfaithful: new drug: 布洛芬" counts as "unfaithful: new drug"."""
    parts = reason.split(": ")
    return ": ".join(parts[:2]) if parts[0] in {"unfaithful", "incomplete"} else parts[0]


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common())


def _reasons(connection: sqlite3.Connection, state: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for reason, count in connection.execute(
        "SELECT reason, count(*) FROM row WHERE current = 1 AND state = ? GROUP BY reason", (state,)
    ):
        counts[short(reason)] += count
    return _ordered(counts)


def _findings(connection: sqlite3.Connection) -> dict[str, int]:
    """Findings in the answers as they stand, flagged or rejected."""
    rows = connection.execute("SELECT findings FROM row WHERE current = 1 AND findings != '[]'")
    return _ordered(Counter(kind for (text,) in rows for kind, _, _ in json.loads(text)))


def _retries(connection: sqlite3.Connection) -> dict[str, int]:
    rows = connection.execute("SELECT retries FROM row WHERE current = 1 AND retries != '[]'")
    return _ordered(Counter(short(reason) for (text,) in rows for reason in json.loads(text)))


def _latency(connection: sqlite3.Connection) -> dict[str, float]:
    """Seconds of the last answer of each row, at some percentiles."""
    where = "WHERE current = 1 AND state IN ('accepted', 'rejected') AND seconds > 0"
    (count,) = connection.execute(f"SELECT count(*) FROM row {where}").fetchone()
    found = {}
    for percent in (50, 90, 99, 100) if count else ():
        offset = min(count - 1, count * percent // 100)
        found[f"p{percent}"] = connection.execute(
            f"SELECT seconds FROM row {where} ORDER BY seconds LIMIT 1 OFFSET ?", (offset,)
        ).fetchone()[0]
    return found


def _samples(connection: sqlite3.Connection, source: Path) -> list[tuple[Record, str, str]]:
    """Accepted rows, before and after, and their findings; ids are hashes, so the first ones are a fair choice."""
    rows = connection.execute(
        "SELECT position, reply, findings FROM row WHERE current = 1 AND state = ? ORDER BY id LIMIT ?", (ACCEPTED, SAMPLES)
    ).fetchall()
    found = []
    with open(source, "rb") as file:
        for position, reply, findings in rows:
            file.seek(position)
            found.append((Record(**json.loads(file.readline())), finished_text(reply), _listed(findings)))
    return found


def _listed(findings: str) -> str:
    return "；".join(f"{kind}：{span}" for kind, span, _ in json.loads(findings)) or "无"


# ---------------------------------------------------------------- page


def page(facts: dict[str, Any], samples: list[tuple[Record, str, str]]) -> str:
    states = ((NAMES[state], count) for state, count in facts["states"].items())
    body = [f"<h1>改写报告</h1><p>共 {facts['rows']} 行。改写内容由模型生成，未经医师审定。</p>", _table("结果", "状态", states)]
    if "tokens" in facts:
        body += _sent(facts)
    if samples:
        body.append(f"<h2>抽样对照（{len(samples)} 例）</h2>{''.join(_sample(*sample) for sample in samples)}")
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>改写报告</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _sent(facts: dict[str, Any]) -> list[str]:
    tokens, latency = facts["tokens"], facts["latency"]
    money = [
        ("已花费", facts["price"]),
        ("丢失的回答至多另计", facts["lost_price"]),
        ("每条已改写", facts["price_per_accepted_row"]),
    ]
    usage = [("输入", tokens["prompt"]), ("其中命中缓存", tokens["cached"]), ("输出", tokens["completion"])]
    return [
        _table(
            "费用（价格表的货币）", "项目", ((name, "未知：配方没有价格" if value is None else value) for name, value in money)
        ),
        _table("词元", "项目", usage),
        _table("单次回答用时（秒）", "分位", latency.items()),
        _table("未通过的原因", "原因", facts["rejected"].items()),
        _table("失败的原因", "原因", facts["failed"].items()),
        _table("忠实性问题（现存回答）", "种类", facts["findings"].items()),
        _table("重试的原因", "原因", facts["retries"].items()),
        _table("复核模型的判定", "判定", facts["judge"].items()),
    ]


def _table(title: str, first: str, rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(
        f'<tr><td>{html.escape(str(name))}</td><td class="n">{html.escape(str(value))}</td></tr>' for name, value in rows
    )
    return f"<h2>{title}</h2><table><tr><th>{first}</th><th>数值</th></tr>{cells}</table>" if cells else ""


def _sample(record: Record, after: str, findings: str) -> str:
    question, before, text = (html.escape(value) for value in (record.question, record.answer, after))
    return (
        f'<table><tr><th colspan="2">问：{question}</th></tr><tr><th class="half">改写前</th><th class="half">改写后</th></tr>'
        f"<tr><td><pre>{before}</pre></td><td><pre>{text}</pre></td></tr>"
        f'<tr><td colspan="2">忠实性问题：{html.escape(findings)}</td></tr></table>'
    )
