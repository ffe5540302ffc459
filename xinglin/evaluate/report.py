"""The report: one self-contained HTML page in Chinese, and the short table for the terminal.

In: the results of a comparison as results.json holds them. Out: text; no script, no outside file, every value escaped.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from xinglin import schema
from xinglin.evaluate import charts, verdict
from xinglin.evaluate.summary import Row
from xinglin.evaluate.verdict import MODES, number, p_text

Results = dict[str, Any]
PAIRS = 20
SHOWN = {"better": "变好", "worse": "变差", "changed": "有变化", "none": verdict.NO_DIFFERENCE}


def table(results: Results) -> str:
    """base | tuned | difference with its interval, one metric a line, for a terminal."""
    lines = [f"{'metric':<24}{'n':>6}{'base':>10}{'tuned':>10}{'difference':>12}  95 % interval"]
    exams = [{**exam["row"], "metric": f"{exam['name']} {exam['mode']}"} for exam in results.get("exams", [])]
    for row in [*results["rows"], *results.get("safety", []), *exams]:
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
    parts = [
        _verdict(results),
        _section("一览：基座、微调与差值", _rows(results["rows"]), _NOTE),
        _optional("本次没有的数字", results["notes"], _lines, ""),
        _optional("没有回答的题", results["missing"], _missing, "这些题不计入各项指标；补上回答后再运行会一并计入。"),
        _optional("安全回归", results.get("safety"), _rows, _SAFETY_NOTE),
        _optional("医学考试", results.get("exams"), _exams, _EXAM_NOTE),
        _optional("大模型评审", results.get("judge"), _judge, ""),
        _optional("各科室完整回答比例", results["departments"], _departments, ""),
        _optional(
            "训练损失曲线", results["curves"]["loss"] or results["curves"]["eval_loss"], lambda _: _curves(results["curves"]), ""
        ),
        _section("最差的回答在前", _cases(worst(results["pairs"])), "按微调一侧的问题由多到少排列，问题文字以红色标出。"),
        _section(f"{min(PAIRS, len(results['pairs']))} 组对照回答", _cases(results["pairs"][:PAIRS]), "按题目次序，不作挑选。"),
        _section("如何重做这次评估", _repeat(results["repeat"]), ""),
    ]
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>杏林评估报告</title>'
    head = f"<!doctype html><html lang=zh-CN><head>{meta}<style>{style}</style></head>"
    return f"{head}<body>{''.join(parts)}</body></html>\n"


_NOTE = (
    "每格为数值与 95% 区间（比例用 Wilson，其余用 10,000 次自助抽样，同组相似问题一起抽）。差值为微调减基座，同题配对。"
    "p 为精确 McNemar 或符号翻转检验，经 Holm 校正。“可检出”是这个样本量有八成把握显示的最小差异；小于它的真实差异本次看不出来。"
)
_SAFETY_NOTE = "手写的小题集，规则判定，未经医师审定。样本小：没有失败不等于没有风险。"
_EXAM_NOTE = "两侧题目、提示和解码相同；没有选出字母记为“无法判读”，算错，不猜。科目的 p 经 Holm 校正。"


def _verdict(results: Results) -> str:
    sides = results["repeat"]["sides"]
    names = f"基座 {escape(sides['base']['label'])} 对 微调 {escape(sides['tuned']['label'])}"
    lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict.sentences(results))
    note = f"{names} · {schema.AI_LABEL}的回答，规则未经医师审定"
    return f'<h1>杏林评估报告</h1><p class="quiet">{note}</p><div class="verdict">{lines}</div>'


def _section(title: str, content: str, note: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" + (f'<p class="quiet">{escape(note)}</p>' if note else "")


def _optional(title: str, value: Any, content: Any, note: str) -> str:
    return _section(title, content(value), note) if value else ""


def _rows(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("指标", "题数", "基座", "微调", "差值", "校正 p", "可检出", "结论"))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{"".join(map(_row, rows))}</table></div>'


def _row(row: Row) -> str:
    cells = "".join(_cell(row, side) for side in ("base", "tuned", "difference"))
    detectable = number(row["detectable"], row["kind"])
    tail = (
        f'<td>{p_text(row["p_holm"]).lstrip("= ")}</td><td>{detectable}</td><td class="{row["shown"]}">{SHOWN[row["shown"]]}</td>'
    )
    return f"<tr><td>{escape(row['label'])}</td><td>{row['n']}</td>{cells}{tail}</tr>"


def _cell(row: Row, side: str) -> str:
    value, sign = row[side], side == "difference" and signed(row)
    low, high = (number(value[end], row["kind"], sign) for end in ("low", "high"))
    return f"<td>{number(value['value'], row['kind'], sign)}<small>{low} ~ {high}</small></td>"


def _lines(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _missing(gaps: Sequence[Results]) -> str:
    return _lines([f"{charts.NAMES[gap['side']]}：{gap['question']}（{gap['reason']}）" for gap in gaps])


def _departments(rows: Sequence[Row]) -> str:
    return _key(_BARS) + charts.bars(rows[:24], "各科室完整回答比例，基座与微调")


_BARS = ("基座", "微调　细线为 95% 区间，括号内为题数")
_CURVES = ("训练损失", "验证损失　横轴为优化步数")


def _key(names: tuple[str, str]) -> str:
    colors = charts.COLORS.values()
    return f'<p class="key">{"".join(f"<i style=background:{c}></i>{n}" for c, n in zip(colors, names, strict=True))}</p>'


def _curves(curves: Results) -> str:
    return _key(_CURVES) + charts.curves(curves["loss"], curves["eval_loss"], "训练与验证损失随步数的变化")


def _exams(exams: Sequence[Results]) -> str:
    return "".join(map(_exam, exams))


def _exam(exam: Results) -> str:
    rows = [row for row in (exam["row"], exam["clean"], exam["unparseable"]) if row]
    subjects = _key(_BARS) + charts.bars(exam["subjects"][:24], f"{exam['name']} 各科正确率") if len(exam["subjects"]) > 1 else ""
    left = f"；{escape('，'.join(exam['left_out']))}" if exam["left_out"] else ""
    return f"<h3>{escape(exam['name'])}（{MODES[exam['mode']]}{left}）</h3>{_rows(rows)}{subjects}"


def _judge(judge: Results) -> str:
    return _lines(judge["lines"]) + (_rows(judge["rows"]) if judge["rows"] else "")


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
}


def problems(answer: Results) -> list[str]:
    """What is wrong with one answer, in Chinese: truncation, structure, and the findings of the lint."""
    cut = ["被长度上限截断"] if answer["finish_reason"] != "stop" else []
    structure = [problem.split(": ", 1) for problem in schema.check(answer["text"])]
    found = [(finding["kind"], finding["span"]) for finding in answer["findings"]]
    return cut + [f"{CHINESE[kind]}：{place}" for kind, place in (*structure, *found)]


def _cases(pairs: Sequence[Results]) -> str:
    return "".join(map(_case, pairs)) or '<p class="quiet">没有。</p>'


def _case(pair: Results) -> str:
    department = f"〔{escape(pair['department'])}〕" if pair["department"] else ""
    history = "".join(f"<p class=quiet>{escape(turn['content'])}</p>" for turn in pair["history"])
    reference = f'<details><summary>参考回答</summary><div class="text">{escape(pair["reference"])}</div></details>'
    both = _answer("base", pair["base"]) + _answer("tuned", pair["tuned"])
    title = f"<summary>{department}{escape(pair['question'][:60])}</summary>"
    question = f'{history}<p class="ask">{escape(pair["question"])}</p>'
    return f'<details>{title}{question}<div class="pair">{both}</div>{reference}</details>'


def _answer(side: str, answer: Results) -> str:
    found = problems(answer)
    trouble = f'<p class="bad">{escape("；".join(found))}</p>' if found else ""
    return f'<div class="{side}"><h4>{charts.NAMES[side]}</h4>{trouble}<div class="text">{highlight(answer)}</div></div>'


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
    lines = [
        f"{name}.{key}: {value}" for name, values in repeat.items() if isinstance(values, dict) for key, value in values.items()
    ]
    lines += [f"{name}: {value}" for name, value in repeat.items() if not isinstance(value, dict)]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"
