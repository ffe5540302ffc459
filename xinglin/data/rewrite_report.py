"""The report of a rewrite: one self-contained Chinese page and the same figures as JSON.

In: the journal. Out: ``report.json`` and ``report.html``::

    {"rows": 10000, "states": {"accepted": 9120, …}, "rejected": {"unfaithful: new drug": 41, …}, "price": 1.38, …}
"""

import html
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
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
WORDS = {
    "new drug": "新增药名",
    "dropped drug": "漏掉药名",
    "new number": "新增数值",
    "dropped dose": "漏掉或改动用量",
    "dropped limit": "漏掉或改动限度",
    "new result": "新增检查结果",
    "new certainty": "新增肯定说法",
    "dropped prohibition": "漏掉禁忌或劝阻",
    "flipped prohibition": "禁忌写反",
    "laterality": "左右不符",
    "age": "漏掉年龄",
    "pregnancy": "孕期或哺乳不符",
    "judge": "复核模型指出",
    "unfaithful": "不忠实",
    "incomplete": "不完整",
    "cut": "回答被截断",
    "empty answer": "空回答",
    "content filtered": "被内容过滤",
    "time-out": "超时",
    "status 200 without an answer in it": "状态 200 但没有回答",
    "connection broken": "连接中断",
    "cannot connect": "无法连接",
    "section missing": "缺少部分",
    "last sentence unfinished": "末句未完",
    "section empty": "部分为空",
    "section repeated": "部分重复",
    "sections out of order": "次序不对",
    "faithful": "忠实",
    "no verdict": "没有给出判定",
}
STYLE = """:root{color-scheme:light dark;--ink:#1c2a25;--paper:#fbfcfb;--line:#cfdcd6;--head:#eaf3ef;--title:#0b5d46}
@media(prefers-color-scheme:dark){:root{--ink:#dfe8e4;--paper:#131a17;--line:#34443d;--head:#1d2a25;--title:#7fd1b4}}
body{font:16px/1.7 system-ui,"Noto Sans SC","PingFang SC","Microsoft YaHei",sans-serif;
max-width:72rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}h1,h2{color:var(--title)}
h2{font-size:1.15rem;margin:0 0 .5rem}.tables{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1.5rem}
table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left}
th{background:var(--head)}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
article{border:1px solid var(--line);border-radius:.5rem;margin:1rem 0;padding:.75rem 1rem}article h3{margin:0;font-size:1rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:0 2rem}
.pair h4{margin:.5rem 0 0;color:var(--title)}pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit;margin:0}
.found{margin:.5rem 0 0;padding:.3rem .6rem;background:var(--head);border-radius:.3rem}#samples{margin-top:2rem}"""


def write(folder: Path, source: Path, path: Path, settings: Settings) -> list[Path]:
    """Write both files from the journal at ``path``; ``source`` gives the samples their text before."""
    with journals.reading(path) as connection:
        facts = figures(connection, settings)
        samples = _samples(connection, source)
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
    return "；".join(f"{_in_chinese(kind)}：{span or message}" for kind, span, message in json.loads(findings)) or "无"


# ---------------------------------------------------------------- page


def page(facts: dict[str, Any], samples: list[tuple[Record, str, str]]) -> str:
    states = [(NAMES[state], count) for state, count in facts["states"].items()]
    tables = [_table("结果", "状态", states), *(_sent(facts) if "tokens" in facts else [])]
    body = [
        f"<h1>改写报告</h1><p>共 {facts['rows']} 行。改写内容由模型生成，未经医师审定。</p>",
        f'<div class="tables">{"".join(tables)}</div>',
    ]
    if samples:
        body.append(f'<h2 id="samples">抽样对照（{len(samples)} 例）</h2>{"".join(_sample(*sample) for sample in samples)}')
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
            "费用（价格表的货币）",
            "项目",
            [(name, "未知：配方没有价格" if value is None else f"{value:.6g}") for name, value in money],
        ),
        _table("词元", "项目", usage),
        _table("单次回答用时（秒）", "分位", [(name.replace("p100", "最长"), value) for name, value in latency.items()]),
        *(
            _table(title, first, [(_in_chinese(name), count) for name, count in facts[key].items()])
            for title, first, key in (
                ("未通过的原因", "原因", "rejected"),
                ("失败的原因", "原因", "failed"),
                ("忠实性问题（现存回答）", "种类", "findings"),
                ("重试的原因", "原因", "retries"),
                ("复核模型的判定", "判定", "judge"),
            )
        ),
    ]


def _in_chinese(reason: str) -> str:
    """A reason as the journal holds it, part by part; what has no word here stays as it is (HTTP 429)."""
    return "：".join(WORDS.get(part, WORDS.get(part.partition(" (")[0], part)) for part in reason.split(": "))


def _table(title: str, first: str, rows: Sequence[tuple[str, Any]]) -> str:
    shown = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows]
    cells = "".join(f'<tr><td>{html.escape(name)}</td><td class="n">{html.escape(value)}</td></tr>' for name, value in shown)
    head = f'<tr><th>{first}</th><th class="n">数值</th></tr>'
    return f"<section><h2>{title}</h2><table>{head}{cells}</table></section>" if rows else ""


def _sample(record: Record, after: str, findings: str) -> str:
    question, before, text = (html.escape(value) for value in (record.question, record.answer, after))
    return (
        f'<article><h3>问：{question}</h3><div class="pair"><div><h4>改写前</h4><pre>{before}</pre></div>'
        f'<div><h4>改写后</h4><pre>{text}</pre></div></div><p class="found">忠实性问题：{html.escape(findings)}</p></article>'
    )
