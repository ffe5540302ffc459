"""The report: one self-contained HTML page in Chinese, and the short table for the terminal.

In: the results of a comparison as results.json holds them. Out: text; no script, no outside file, every value escaped.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from xinglin import schema
from xinglin.evaluate import charts, verdict
from xinglin.evaluate.summary import Row
from xinglin.evaluate.verdict import MODES, number, p_text

Results = dict[str, Any]
PAIRS = 20
BARS = 24
SHOWN = {"better": "变好", "worse": "变差", "changed": "有变化", "none": verdict.NO_DIFFERENCE}


def table(results: Results) -> str:
    """base | tuned | difference with its interval, one metric a line, for a terminal."""
    first, second = ("base", "tuned") if results["names"]["base"] == "基座" else results["names"].values()
    lines = [f"{'metric':<24}{'n':>6}{first:>10}{second:>10}{'difference':>12}  95 % interval"]
    exams = [{**exam["row"], "metric": f"{exam['name']} {exam['mode']}"} for exam in results.get("exams", [])]
    served = [{**row, "metric": f"served {row['metric']}"} for row in results.get("served", [])]
    for row in [*results["rows"], *results.get("safety", []), *served, *exams]:
        low, high = (number(row["difference"][end], row["kind"], signed(row)) for end in ("low", "high"))
        figures = [
            number(row[side]["value"], row["kind"], side == "difference" and signed(row))
            for side in ("base", "tuned", "difference")
        ]
        shown = "no difference shown" if row["shown"] == "none" else row["shown"]
        lines.append(
            f"{row['metric'][:23]:<24}{row['n']:>6}{figures[0]:>10}{figures[1]:>10}{figures[2]:>12}  [{low}, {high}] {shown}"
        )
    return "\n".join(lines)


def signed(row: Row) -> bool:
    """A ratio has no sign."""
    return bool(row["metric"] != "perplexity")


def render(results: Results) -> str:
    """The whole page."""
    names, shown = results["names"], results["pairs"][:PAIRS]
    departments = results["departments"] if len(results["departments"]) > 1 else []
    curve = results["curves"]["loss"] or results["curves"]["eval_loss"]
    parts = [
        _verdict(results),
        _section(f"一览：{names['base']}、{names['tuned']}与差值", _rows(results["rows"], names), _note(names)),
        _optional("本次没有的数字", results["notes"], _lines, ""),
        _optional("没有回答的题", results["missing"], lambda gaps: _missing(gaps, names), _MISSING_NOTE),
        _optional("安全回归", results.get("safety"), lambda rows: _rows(rows, names), _SAFETY_NOTE),
        _optional("按上线方式作答（强制三段）", results.get("served"), lambda rows: _rows(rows, names), _SERVED_NOTE),
        _optional("医学考试", results.get("exams"), lambda exams: "".join(_exam(exam, names) for exam in exams), _EXAM_NOTE),
        _optional("大模型评审", results.get("judge"), lambda judge: _judge(judge, names), ""),
        _optional("各科室完整回答比例", departments, lambda rows: _bars(rows, names, "各科室完整回答比例"), ""),
        _optional("训练损失曲线", curve, lambda _: _curves(results["curves"]), ""),
        _section("最差的回答在前", _cases(worst(results["pairs"]), names), f"按{names['tuned']}一侧的问题由多到少排列。"),
        _section(f"{len(shown)} 组对照回答", _cases(shown, names), "按题目次序，不作挑选；规则发现的问题处以红色标出。"),
        _section("如何重做这次评估", _repeat(results["repeat"]), ""),
    ]
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    meta = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
    )
    head = f"<!doctype html><html lang=zh-CN><head>{meta}<title>杏林评估报告</title><style>{style}</style></head>"
    return f"{head}<body>{''.join(parts)}</body></html>\n"


def _note(names: charts.Names) -> str:
    return (
        "每格为数值与 95% 区间（比例用 Wilson，其余用 10,000 次自助抽样，同组相似问题一起抽）。"
        f"差值为{names['tuned']}减{names['base']}，同题配对。p 为精确 McNemar 或符号翻转检验，经 Holm 校正。"
        "区间未经校正，所以区间不含零而校正后仍“未显示差异”的情形会出现。“可检出”是这个样本量有八成把握显示的最小差异；小于它的真实差异本次看不出来。"
    )


_MISSING_NOTE = "这些题不计入各项指标；再次运行会重新提问。"
_SAFETY_NOTE = "手写的小题集，规则判定，未经医师审定。样本小：没有失败不等于没有风险。"
_SERVED_NOTE = (
    "上面的数字是模型自由作答，显示微调改变了什么；这里两侧都由程序写出标题与要点（serve.structure=enforced），即用户所见。"
)
_EXAM_NOTE = "两侧题目、提示和解码相同；没有选出字母记为“无法判读”，算错，不猜。每种考试由 lm-evaluation-harness 出题和判分。"


def _verdict(results: Results) -> str:
    sides = results["repeat"]["sides"]
    labels = [f"{results['names'][side]} {escape(sides[side]['label'])}" for side in ("base", "tuned")]
    lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict.sentences(results))
    note = f"{' 对 '.join(labels)} · {schema.AI_LABEL}的回答，规则未经医师审定"
    return f'<h1>杏林评估报告</h1><p class="quiet">{note}</p><div class="verdict">{lines}</div>'


def _section(title: str, content: str, note: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" + (f'<p class="quiet">{escape(note)}</p>' if note else "")


def _optional(title: str, value: Any, content: Any, note: str) -> str:
    return _section(title, content(value), note) if value else ""


def _rows(rows: Sequence[Row], names: charts.Names) -> str:
    titles = ("指标", "题数", names["base"], names["tuned"], "差值", "校正 p", "可检出", "结论")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(_row(row, titles) for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _row(row: Row, titles: Sequence[str]) -> str:
    cells = [escape(row["label"]), str(row["n"]), *(_figure(row, side) for side in ("base", "tuned", "difference"))]
    cells += [p_text(row["p_holm"]).lstrip("= "), number(row["detectable"], row["kind"]), SHOWN[row["shown"]]]
    # On a phone a row becomes a card, where each cell carries its column's title.
    marked = (f'<td data-title="{escape(title)}">{cell}</td>' for title, cell in zip(titles, cells, strict=True))
    return f'<tr class="{row["shown"]}">{"".join(marked)}</tr>'


def _figure(row: Row, side: str) -> str:
    value, sign = row[side], side == "difference" and signed(row)
    low, high = (number(value[end], row["kind"], sign) for end in ("low", "high"))
    return f"{number(value['value'], row['kind'], sign)}<small>{low} ~ {high}</small>"


def _lines(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _missing(gaps: Sequence[Results], names: charts.Names) -> str:
    return _lines([f"{names[gap['side']]}：{gap['question']}（{gap['reason']}）" for gap in gaps])


def _bars(rows: Sequence[Row], names: charts.Names, caption: str) -> str:
    """The largest groups as bars; that some are left out is said."""
    rest = f'<p class="quiet">按题数只画出前 {BARS} 组，共 {len(rows)} 组，其余见 results.json。</p>' if len(rows) > BARS else ""
    key = _key((names["base"], f"{names['tuned']}　细线为 95% 区间，括号内为题数"))
    return key + charts.bars(rows[:BARS], names, caption) + rest + f'<p class="quiet">{escape(_groups(rows))}</p>'


def _groups(rows: Sequence[Row]) -> str:
    """Which groups differ, after Holm over all of them."""
    shown = [f"{row['label']} {SHOWN[row['shown']]}（p {p_text(row['p_holm'])}）" for row in rows if row["shown"] != "none"]
    return f"经 Holm 校正，{len(rows)} 组中" + ("、".join(shown) if shown else f"均{verdict.NO_DIFFERENCE}") + "。"


_CURVES = ("训练损失", "验证损失　横轴为优化步数")


def _key(names: tuple[str, str]) -> str:
    colors = charts.COLORS.values()
    return f'<p class="key">{"".join(f"<i style=background:{c}></i>{n}" for c, n in zip(colors, names, strict=True))}</p>'


def _curves(curves: Results) -> str:
    return _key(_CURVES) + charts.curves(curves["loss"], curves["eval_loss"], "训练与验证损失随步数的变化")


def _exam(exam: Results, names: charts.Names) -> str:
    rows = [row for row in (exam["row"], exam["clean"], exam["unparseable"]) if row]
    subjects = _bars(exam["subjects"], names, f"{exam['name']} 各科正确率") if len(exam["subjects"]) > 1 else ""
    left = f"；{escape('，'.join(exam['left_out']))}" if exam["left_out"] else ""
    return f"<h3>{escape(exam['name'])}（{MODES[exam['mode']]}{left}）</h3>{_rows(rows, names)}{subjects}"


def _judge(judge: Results, names: charts.Names) -> str:
    return _lines(judge["lines"]) + (_rows(judge["rows"], names) if judge["rows"] else "")


def worst(pairs: Sequence[Results]) -> list[Results]:
    """The tuned answers with the most problems, worst first; none where all are without."""
    troubled = [pair for pair in pairs if problems(pair["tuned"])]
    return sorted(troubled, key=lambda pair: -len(problems(pair["tuned"])))[:10]


CHINESE = {
    "section missing": "缺少部分",
    "section repeated": "部分重复",
    "sections out of order": "次序不对",
    "section empty": "部分空白",
    "last sentence unfinished": "末句未写完",
    "unknown_drug": "未知药名",
    "dose": "剂量超出常用上限",
    "contraindication": "禁忌用药",
    "invented_result": "虚构结果或来源",
    "certainty": "绝对化说法",
    "contradiction": "前后矛盾",
    "doctor": "自称医生",
    "prescription": "处方或停药指令",
}


def problems(answer: Results) -> list[str]:
    """What is wrong with one answer, in Chinese: truncation, structure, and the findings of the lint."""
    cut = ["被长度上限截断"] if answer["finish_reason"] != "stop" else []
    structure = [problem.split(": ", 1) for problem in schema.check(answer["text"])]
    found = [(finding["kind"], finding["span"]) for finding in answer["findings"]]
    return cut + [f"{CHINESE[kind]}：{place}" for kind, place in (*structure, *found)]


def _cases(pairs: Sequence[Results], names: charts.Names) -> str:
    return "".join(_case(pair, names) for pair in pairs) or '<p class="quiet">没有。</p>'


def _case(pair: Results, names: charts.Names) -> str:
    department = f"〔{escape(pair['department'])}〕" if pair["department"] else ""
    history = "".join(f"<p class=quiet>{escape(turn['content'])}</p>" for turn in pair["history"])
    reference = f'<details><summary>参考回答</summary><div class="text">{escape(pair["reference"])}</div></details>'
    both = "".join(_answer(side, names[side], pair[side]) for side in ("base", "tuned"))
    title = f"<summary>{department}{escape(pair['question'][:60])}</summary>"
    question = f'{history}<p class="ask">{escape(pair["question"])}</p>'
    return f'<details>{title}{question}<div class="pair">{both}</div>{reference}</details>'


def _answer(side: str, name: str, answer: Results) -> str:
    found = problems(answer)
    trouble = f'<p class="bad">{escape("；".join(found))}</p>' if found else ""
    return f'<div class="{side}"><h4>{escape(name)}</h4>{trouble}<div class="text">{highlight(answer)}</div></div>'


def highlight(answer: Results) -> str:
    """The answer escaped, its section titles bold and the places of the lint's findings marked."""
    text, spans, parts, place = (
        answer["text"],
        sorted((finding["start"], finding["end"]) for finding in answer["findings"]),
        [],
        0,
    )
    for start, end in spans:
        if start >= place:
            parts += [_bold(text[place:start]), f"<mark>{escape(text[start:end])}</mark>"]
            place = end
    return "".join([*parts, _bold(text[place:])])


def _bold(text: str) -> str:
    titles = "|".join(schema.TITLES)
    return re.sub(rf"(?m)^(.{{0,4}}(?:{titles}).{{0,3}})$", r"<b>\1</b>", escape(text))


def _repeat(repeat: Results) -> str:
    return f"<pre>{escape(chr(10).join(_flat(repeat)))}</pre>"


def _flat(values: Results, prefix: str = "") -> Iterator[str]:
    """Nested values, one a line: "decoding.greedy: True"."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}: {value}"
