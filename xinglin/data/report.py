"""Report: what became of every row, as counts for programs and as a page for people.

In: the rows one by one, as kept or rejected. Out: ``report.json`` and ``report.html`` (Chinese, one file, no script)::

    {"rows": 223, "kept": 134, "files": {"my.csv": {"format": "csv", "encoding": "gb18030", "read": 223, …}},
     "rejected": {"advertisement": {"count": 7, "examples": [{"source": …, "raw": …}]}}, "personal_data": {"mobile": 3}, …}
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from xinglin import schema
from xinglin.data.filters import NAMES
from xinglin.reading import Kind
from xinglin.records import Record, Rejected
from xinglin.safety.pii import PLACEHOLDERS

EXAMPLES = 5
TOKENS_PER_CHARACTER = 0.64  # Chinese medical text with the tokenizer of Qwen2.5
_STEP = 64  # tokens per bar of the length histogram
_LIMITS = (512, 1024, 2048, 4096)


@dataclass
class Tally:
    """Counts over all rows of a run; examples are the first of their kind."""

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Rejected]] = field(default_factory=dict)
    personal: Counter[str] = field(default_factory=Counter)
    departments: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # estimated tokens of the whole prompt and answer
    turns: Counter[int] = field(default_factory=Counter)
    benchmarks: dict[str, int] = field(default_factory=dict)  # questions read of each benchmark file
    complete: int = 0
    groups: int = 0  # question groups of the rows kept, ...
    grouped: int = 0  # ... and the rows among them that share theirs with another

    def add(self, row: Record | Rejected, kinds: str) -> None:
        """Count a row; ``kinds`` names the personal data found in it, one word each."""
        self.read[str(row.source["file"])] += 1
        self.personal.update(kinds.split())
        if isinstance(row, Record):
            self._keep(row)
        else:
            self._reject(row)

    def _keep(self, record: Record) -> None:
        self.kept[str(record.source["file"])] += 1
        self.departments[str(record.meta.get("department", "")) or "（未标注）"] += 1
        self.lengths[tokens(record)] += 1
        self.turns[len(record.messages) // 2] += 1
        self.complete += not schema.check(record.answer)

    def _reject(self, row: Rejected) -> None:
        name = row.reason.split(":")[0]
        self.reasons[name] += 1
        examples = self.examples.setdefault(name, [])
        if len(examples) < EXAMPLES:
            examples.append(row)

    def state(self) -> dict[str, Any]:
        """What JSON can hold of it, for ``merge``."""
        examples = {name: [vars(row) for row in rows] for name, rows in self.examples.items()}
        return {**{name: getter(self) for name, getter in _COUNTERS.items()}, "examples": examples, "complete": self.complete}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the counts of the rows that follow."""
        for name, getter in _COUNTERS.items():
            counter = getter(self)
            counter.update(state[name] if name not in _NUMBERED else {int(key): count for key, count in state[name].items()})
        for name, rows in state["examples"].items():
            known = self.examples.setdefault(name, [])
            known += [Rejected(**row) for row in rows[: EXAMPLES - len(known)]]
        self.complete += state["complete"]

    def counts(self) -> dict[str, Any]:
        return {"rows": self.read.total(), "kept": self.kept.total(), **self.reasons}

    def longer(self, limit: int) -> int:
        return sum(count for length, count in self.lengths.items() if length > limit)

    def facts(self, kinds: Mapping[str, Kind], max_length: int) -> dict[str, Any]:
        return {
            "rows": self.read.total(),
            "kept": self.kept.total(),
            "files": {name: {**kind._asdict(), "read": self.read[name], "kept": self.kept[name]} for name, kind in kinds.items()},
            "rejected": {
                name: {
                    "count": count,
                    "examples": [{"source": row.source, "reason": row.reason, "raw": row.raw} for row in self.examples[name]],
                }
                for name, count in self.reasons.most_common()
            },
            "benchmarks": {name: {"questions": count} for name, count in self.benchmarks.items()},
            "personal_data": dict(self.personal.most_common()),
            "departments": dict(self.departments.most_common()),
            "groups": self.groups,
            "rows_in_shared_groups": self.grouped,
            "turns": dict(sorted(self.turns.items())),
            "complete_in_three_sections": self.complete,
            "estimated_tokens": {"longer_than": {str(limit): self.longer(limit) for limit in sorted({*_LIMITS, max_length})}},
        }


_COUNTERS: dict[str, Callable[[Tally], Counter[Any]]] = {
    "read": lambda tally: tally.read,
    "kept": lambda tally: tally.kept,
    "reasons": lambda tally: tally.reasons,
    "personal": lambda tally: tally.personal,
    "departments": lambda tally: tally.departments,
    "lengths": lambda tally: tally.lengths,
    "turns": lambda tally: tally.turns,
}
_NUMBERED = {"lengths", "turns"}


def tokens(record: Record) -> int:
    """Estimated tokens of a training row: the text, the system turn and the marks around the turns."""
    characters = len(schema.SYSTEM) + sum(len(turn["content"]) for turn in record.messages)
    return round(characters * TOKENS_PER_CHARACTER) + 5 * (1 + len(record.messages))


# ---------------------------------------------------------------- the page

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2521;--soft:#5d6b64;--line:#d9e0dc;--card:#fff;--ground:#f4f7f5;
--green:#2f7d5b;--red:#b4532a}
@media(prefers-color-scheme:dark){:root{--ink:#e6ece8;--soft:#9fb0a7;--line:#33403a;--card:#1b221f;--ground:#121715;
--green:#5fb78e;--red:#e08a5f}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);line-height:1.6;
font-family:"Noto Sans CJK SC","Source Han Sans SC","PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:1000px;margin:0 auto;padding:28px 20px 60px}h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:0 0 12px}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin-top:18px}
p{margin:6px 0;color:var(--soft)}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:6px 8px;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:500}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.wide{overflow-x:auto}
.flow{display:flex;flex-wrap:wrap;gap:8px;align-items:stretch}
.flow div{flex:1 1 120px;border-left:4px solid var(--green);padding:4px 12px}
.flow div.out{border-color:var(--red)}.flow span{color:var(--soft)}
.flow b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
td:first-child{min-width:6.5em;overflow-wrap:anywhere}.wide svg{min-width:560px;display:block}
.track{min-width:100px;margin-top:7px}
.bar{background:var(--green);height:10px;border-radius:3px;min-width:2px}.bar.red{background:var(--red)}
details{margin:6px 0}summary{cursor:pointer}blockquote{margin:6px 0 6px 12px;padding-left:10px;border-left:3px solid var(--line);
white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem}blockquote small{color:var(--soft);display:block}
"""


def page(tally: Tally, kinds: Mapping[str, Kind], max_length: int, name: str) -> str:
    """The report as one HTML file."""
    sections = (
        ("数据流", _flow(tally)),
        ("来源文件", _files(tally, kinds)),
        ("评测题", _benchmarks(tally)),
        ("各项过滤与示例", _filters(tally)),
        ("长度", _lengths(tally, max_length)),
        ("重复与问题分组", _duplicates(tally)),
        ("个人信息", _personal(tally)),
        ("科室", _counts(tally.departments.most_common(30), "科室")),
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    return (
        f'<!doctype html>\n<html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>清洗报告 · {escape(name)}</title><style>{_STYLE}</style></head><body><main><h1>清洗报告 · {escape(name)}</h1>"
        f"<p>每一行被剔除的数据都在 rejected.jsonl 中，带文件、行号和原因；个人信息已替换为占位符。</p>"
        f"{body}</main></body></html>\n"
    )


def _flow(tally: Tally) -> str:
    total, reasons = tally.read.total(), tally.reasons
    copies = reasons["exact_duplicate"] + reasons["near_duplicate"]
    lost = reasons["unreadable"] + reasons["no_question"] + reasons["no_answer"] + reasons["empty_answer"]
    steps = (
        ("读入", total, ""),
        ("无法读取或缺少内容", -lost, "out"),
        ("过滤", -(reasons.total() - copies - lost - reasons["benchmark"]), "out"),
        ("与评测题重合", -reasons["benchmark"], "out"),
        ("重复", -copies, "out"),
        ("保留", tally.kept.total(), ""),
    )
    cells = "".join(
        f'<div class="{kind}"><b>{"−" if count < 0 else ""}{abs(count):,}</b>'
        f"<span>{label}（{_share(abs(count), total)}）</span></div>"
        for label, count, kind in steps
        if count or not kind
    )
    complete = f"<p>保留的行中，{tally.complete:,} 行（{_share(tally.complete, tally.kept.total())}）的回答已是完整的三段式。</p>"
    return f'<div class="flow">{cells}</div>{complete}'


def _files(tally: Tally, kinds: Mapping[str, Kind]) -> str:
    rows = [
        (
            escape(name),
            kind.format + " + gzip" * kind.gzip,
            kind.encoding or "—",
            f"{tally.read[name]:,}",
            f"{tally.kept[name]:,}",
            _share(tally.kept[name], tally.read[name]),
        )
        for name, kind in kinds.items()
    ]
    return _table(("文件", "格式", "编码", "读入", "保留", "比例"), rows, numbers=3)


def _benchmarks(tally: Tally) -> str:
    if not tally.benchmarks:
        return "<p>没有给出评测题文件（clean.decontaminate），因此没有与任何评测题比对。</p>"
    rows = [(escape(name), f"{count:,}") for name, count in tally.benchmarks.items()]
    removed = f"<p>与其中题目重合而剔除的数据：{tally.reasons['benchmark']:,} 行。</p>"
    return _table(("评测题文件", "读出的题目"), rows, numbers=1) + removed


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A table of cells that are HTML already; the columns from ``numbers`` on hold numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ("", ' class="n"')
        return "".join(f"<{tag}{kinds[place >= numbers]}>{cell}</{tag}>" for place, cell in enumerate(cells))

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><tr>{line(head, "th")}</tr>{body}</table></div>'


def _filters(tally: Tally) -> str:
    parts = []
    for name, count in tally.reasons.most_common():
        quotes = "".join(_quote(row) for row in tally.examples[name])
        title = f"{NAMES[name]} <code>{name}</code>：{count:,} 行（{_share(count, tally.read.total())}）"
        parts.append(f"<details><summary>{title}</summary>{quotes}</details>")
    silent = "、".join(NAMES[name] for name in NAMES if not tally.reasons[name])
    return "".join(parts) + f"<p>没有命中：{silent}。</p>"


def _quote(row: Rejected) -> str:
    place = f"{row.source['file']} 第 {row.source['row']} 行 · {row.reason}"
    return f"<blockquote><small>{escape(place)}</small>{escape(row.raw)}</blockquote>"


def _lengths(tally: Tally, max_length: int) -> str:
    bars: Counter[int] = Counter()
    for length, count in tally.lengths.items():
        bars[min(length // _STEP, 4096 // _STEP)] += count
    top, last = max(bars.values(), default=1), max(bars, default=0)
    width = 920 / (last + 1)
    columns = "".join(
        f'<rect x="{number * width:.1f}" y="{120 - 110 * bars[number] / top:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{110 * bars[number] / top:.1f}" fill="var(--{"red" if number * _STEP >= max_length else "green"})">'
        f"<title>{number * _STEP}–{(number + 1) * _STEP} 词元：{bars[number]:,} 行</title></rect>"
        for number in range(last + 1)
    )
    ticks = "".join(
        f'<text x="{number * width:.1f}" y="138" font-size="12" fill="var(--soft)">{number * _STEP}</text>'
        for number in range(0, last + 1, max(1, last // 8))
    )
    over = "；".join(
        f"超过 {limit:,}：{tally.longer(limit):,} 行（{_share(tally.longer(limit), tally.kept.total())}）" for limit in _LIMITS
    )
    own = f"超过 train.max_length = {max_length:,} 的有 {tally.longer(max_length):,} 行，训练时会整行略去，不会截断。"
    drawing = f'<svg viewBox="0 0 930 144" width="100%" role="img" aria-label="长度分布">{columns}{ticks}</svg>'
    chart = f'<div class="wide">{drawing}</div>'
    return f"{chart}<p>每行训练文本的词元数（按每个字 {TOKENS_PER_CHARACTER} 个词元估计，含系统提示）。{own}</p><p>{over}。</p>"


def _duplicates(tally: Tally) -> str:
    exact, near = tally.reasons["exact_duplicate"], tally.reasons["near_duplicate"]
    return (
        f"<p>完全重复 {exact:,} 行，近似重复 {near:,} 行（字符 5-gram 的 Jaccard 相似度逐对核实）。每簇只留一行："
        f"三段完整者优先，其次个人信息少、句子写完、回答较长、位置靠前。</p>"
        f"<p>保留的 {tally.kept.total():,} 行分属 {tally.groups:,} 个问题组，{tally.grouped:,} 行与别的行同组；"
        f"划分数据集时整组同去同留。</p>"
    )


def _personal(tally: Tally) -> str:
    if not tally.personal:
        return "<p>没有发现个人信息。</p>"
    return _counts([(PLACEHOLDERS[kind], count) for kind, count in tally.personal.most_common()], "类型")


def _counts(counts: Sequence[tuple[str, int]], label: str) -> str:
    top = max((count for _, count in counts), default=1)
    rows = [(escape(name), _bar(count / top), f"{count:,}") for name, count in counts]
    return _table((label, "", "数量"), rows, numbers=2)


def _bar(share: float) -> str:
    return f'<div class="track"><div class="bar" style="width:{share:.1%}"></div></div>'


def _share(part: int, whole: int) -> str:
    share = part / max(whole, 1)
    return "不足 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
