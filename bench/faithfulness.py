"""Claim: the faithfulness check finds at least 95 % of seeded errors and raises at most 5 % false alarms on clean rewrites.

Clean rewrites, written by hand (未经医师审定), in sets. ``faithfulness_prompted.jsonl``: one hand wrote doctors' answers, another
rewrote them as the stage's prompt asks (prohibitions in the source's words); the sets "looser" follow it as a middling model
would. ``faithfulness_pairs.jsonl``: free paraphrases, as of a model that was told nothing about words. Each set was measured
once before the rules were mended by what it showed: those figures, ``FIRST_LOOK``, are the honest ones for text the rules have
not seen; what a set gives today only says that nothing broke. This script puts errors into each pair; it shares no word list
with the check. ``--corpus FOLDER`` adds real consultations: there the clean rewrite is the source itself in three sections, so
only the share found says something.
Prints a table and writes ``results/faithfulness.json``.
"""

import argparse
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import save

from xinglin import records
from xinglin.safety import faithfulness
from xinglin.schema import Answer

HERE = Path(__file__).parent
Pair = tuple[str, str, str]  # question, source, rewritten
DRUGS = """
阿奇霉素 头孢克肟 布洛芬 对乙酰氨基酚 奥美拉唑 氯雷他定 硝苯地平 格列美脲 阿托伐他汀 华法林 甲硝唑
左氧氟沙星 地塞米松 氟西汀 卡马西平 多潘立酮 铝碳酸镁 蒙脱石散 右美沙芬 西替利嗪 雷贝拉唑 氟桂利嗪
秋水仙碱 依托考昔 唑吡坦 伐昔洛韦 加巴喷丁 双环醇 缬沙坦 阿仑膦酸钠 克霉唑 特比萘芬 美托洛尔 甲钴胺
塞来昔布 乳果糖 达格列净 琥珀酸亚铁 糠酸莫米松 双氯芬酸 洛哌丁胺 艾司奥美拉唑 阿莫西林 克拉霉素
坦索罗辛 二甲双胍 莫匹罗星 头孢呋辛酯 氨氯地平 沙丁胺醇 普萘洛尔 阿司匹林
""".split()  # noqa: SIM905
RESULTS = (
    "检查结果显示白细胞明显升高。",
    "胸部CT提示双肺感染。",
    "血常规示中性粒细胞升高。",
    "根据您的检查报告，肝功能异常。",
    "心电图显示ST段压低。",
    "B超发现胆囊结石。",
    "化验提示血糖偏高。",
    "胃镜可见胃窦溃疡。",
    "核磁共振显示椎间盘突出压迫神经。",
    "尿常规提示潜血阳性。",
    "甲状腺功能检查正常。",
    "病理证实为良性。",
)
CERTAIN = (
    "坚持用药可以根治。",
    "您得的是慢性炎症。",
    "已经确诊为本病。",
    "这种药没有任何副作用。",
    "一定能治好。",
    "保证不再复发。",
)
MASS = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(?=\s*(?:mg|g|ml|毫克|克|毫升|μg|微克|IU|单位|片|粒)(?![A-Za-z/]))")
UNIT = re.compile(r"(?<=\d)\s*(mg|g|毫克|克)(?![A-Za-z/])")
OTHER = {"mg": "g", "g": "mg", "毫克": "克", "克": "毫克"}
# Not where it asks (要不要), leaves open (不能排除), denies (不算禁忌) or reassures (不要紧张).
FORBID = re.compile(
    r"(?<!无需)(?<!不必)(?<!不用)(?<!盲目)(?<!避)(?<!不算)(?<!没有)(?:禁用|禁止|禁食|禁酒|(?<!要)不要(?![紧担慌怕忧]|(?:太|过于|过度|有)?[紧担慌怕忧恐]|[^，。]{0,2}吓)|"
    r"不可(?!能|避免)|不能(?!成句|免除|平卧|控制|缓解|忍受|[治确排自上抬伸]|负重|进食|耐受|维持|够?(?:完全|绝对|单凭)?(?:排除|下结论|确定|确认|确诊|治愈|根治|治好|被治|把|有))(?<!能不能)|"
    r"不宜|(?<!舍)不得|避免|切勿|忌|慎用|勿|戒(?!指|几))"
)


# ---------------------------------------------------------------- errors


def swap(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    found = [name for name in names if name in pair[2] and name in pair[1]]
    if not found:
        return None
    old = max(found, key=len)
    new = rng.choice([name for name in names if name not in pair[0] + pair[1] and old not in name and name not in old])
    return pair[2].replace(old, new)


def invent_drug(pair: Pair, rng: random.Random, names: list[str]) -> str:
    new = rng.choice([name for name in names if name not in pair[0] + pair[1]])
    return pair[2] + f"也可口服{new}。"


def tenfold(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    found = list(MASS.finditer(pair[2]))
    if not found:
        return None
    match = rng.choice(found)
    return pair[2][: match.start()] + f"{float(match[1]) * 10:g}" + pair[2][match.end() :]


def other_unit(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    found = list(UNIT.finditer(pair[2]))
    if not found:
        return None
    match = rng.choice(found)
    return pair[2][: match.start()] + OTHER[match[1]] + pair[2][match.end() :]


def drop_prohibition(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    """Without one prohibition, however often it is said."""
    pieces = re.split(r"(?<=[，。；！？\n])", pair[2])
    found = [number for number, piece in enumerate(pieces) if FORBID.search(piece)]
    if not found:
        return None
    dropped = rng.choice(found)
    said = _pairs(pieces[dropped])
    again = {number for number in found if len(said & _pairs(pieces[number])) >= len(said) / 2}
    return "".join(piece for number, piece in enumerate(pieces) if number not in again | {dropped})


def _pairs(text: str) -> set[str]:
    text = re.sub(r"\W", "", text)
    return {text[start : start + 2] for start in range(len(text) - 1)}


def flip_prohibition(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    found = list(FORBID.finditer(pair[2]))
    if not found:
        return None
    match = rng.choice(found)
    return pair[2][: match.start()] + ("可用" if match[0].endswith("用") else "可以") + pair[2][match.end() :]


def invent_result(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    said = rng.choice(RESULTS)
    lines = pair[2].split("\n")
    lines[1] = lines[1].rstrip("。") + "。" + said
    return "\n".join(lines)


def be_certain(pair: Pair, rng: random.Random, names: list[str]) -> str:
    return pair[2] + rng.choice(CERTAIN)


def change_side(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    text = re.sub(r"左(?!氧|右|卡|乙|旋)|(?<!左)右(?!美|旋)", lambda match: "右" if match[0] == "左" else "左", pair[2])
    both = re.search("左(?!氧|右|卡|乙|旋)", pair[0] + pair[1]) and re.search("(?<!左)右(?!美|旋)", pair[0] + pair[1])
    return None if text == pair[2] or both else text


def change_age(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    match = re.search(r"(\d+)岁", pair[2])
    return pair[2].replace(match[0], f"{int(match[1]) + 7}岁") if match else None


def drop_pregnancy(pair: Pair, rng: random.Random, names: list[str]) -> str | None:
    if not re.search("孕|妊娠|哺乳", pair[1]) or re.search("备孕|避孕|不孕", pair[1]):
        return None
    text = re.sub(r"怀孕|孕妇|孕晚期|孕期|妊娠|哺乳期|孕\d*周?", "", pair[2])
    return text if text != pair[2] and not re.search("孕|妊娠|哺乳|喂奶|母乳", text) else None


# Set: false alarms of clean pairs, required errors found of seeded ones, when the set was new to the rules.
FIRST_LOOK: dict[str, dict[str, Any]] = {
    "first 40": {"clean": 40, "false alarms": 12},
    "20 more": {"clean": 20, "false alarms": 6, "found": 60, "seeded": 64},
    "20 more, colloquial": {"clean": 20, "false alarms": 9, "found": 62, "seeded": 69},
    "20 more, mixed": {"clean": 20, "false alarms": 3, "found": 60, "seeded": 64},
    "120 for development": {"clean": 120, "false alarms": 39, "found": 423, "seeded": 443},
    "18 more for development": {"clean": 18, "false alarms": 4, "found": 61, "seeded": 66},
    # Written after the rules were frozen and measured once; the rules before these two sets: 28 false alarms, 198 found.
    "60 unseen": {
        "clean": 60,
        "false alarms": 23,
        "found": 199,
        "seeded": 212,
        "prohibitions dropped": [46, 59],
        "prohibitions flipped": [46, 59],
        "other further kinds": [153, 153],
    },
    "15 unseen, second look": {"clean": 15, "false alarms": 6, "found": 53, "seeded": 54},
    # By another hand. Then prohibitions were compared by meaning (wording.py); that, before it was mended by this set: 42 false
    # alarms (20 of them prohibitions), 545 found.
    "ninth": {
        "clean": 172,
        "false alarms": 69,
        "found": 553,
        "seeded": 589,
        "prohibitions dropped": [126, 162],
        "prohibitions flipped": [140, 162],
        "other further kinds": [473, 474],
    },
    # By a third hand, after the rules had been mended by the ninth.
    "tenth": {
        "clean": 75,
        "false alarms": 23,
        "found": 273,
        "seeded": 287,
        "prohibitions dropped": [60, 73],
        "prohibitions flipped": [61, 73],
        "other further kinds": [231, 235],
    },
    # By the third hand too, never read before it was measured, twice.
    "eleventh": {
        "clean": 80,
        "false alarms": 22,
        "found": 256,
        "seeded": 279,
        "prohibitions dropped": [56, 79],
    },
    # Rewritten to the prompt. 1 and 2: rules made for free paraphrases, before anything of these sets was read.
    "prompted 1": {"clean": 100, "false alarms": 1, "found": 274, "seeded": 286, "prohibitions dropped": [39, 51]},
    "prompted 2": {"clean": 100, "false alarms": 6, "found": 335, "seeded": 345, "prohibitions dropped": [53, 63]},
    # 3: mended by 1 and 2; with the rules before that 4 and 338 of 367.
    "prompted 3": {"clean": 120, "false alarms": 4, "found": 351, "seeded": 360, "prohibitions dropped": [59, 68]},
    # 4: mended by 1 to 3.
    "prompted 4": {"clean": 100, "false alarms": 1, "found": 314, "seeded": 320, "prohibitions dropped": [63, 68]},
    # 5: the rules of today, mended by nothing of it since.
    "prompted 5": {"clean": 100, "false alarms": 1, "found": 303, "seeded": 308, "prohibitions dropped": [58, 63]},
    "prompted 4, looser": {"clean": 80, "false alarms": 11, "found": 238, "seeded": 257, "prohibitions dropped": [41, 60]},
    # The same doctors' answers as 3, by another hand, after mending by "4, looser".
    "prompted 3, looser": {"clean": 80, "false alarms": 6, "found": 236, "seeded": 253, "prohibitions dropped": [41, 58]},
}
Seed = Callable[[Pair, random.Random, list[str]], str | None]
REQUIRED: dict[str, Seed] = {
    "drug swapped": swap,
    "dose x 10": tenfold,
    "mg for g": other_unit,
    "prohibition dropped": drop_prohibition,
    "result invented": invent_result,
}
FURTHER: dict[str, Seed] = {
    "drug invented": invent_drug,
    "prohibition flipped": flip_prohibition,
    "certainty": be_certain,
    "left for right": change_side,
    "age changed": change_age,
    "pregnancy dropped": drop_pregnancy,
}

KINDS: dict[str, Callable[[str], bool]] = {
    "all rewritten to the prompt": lambda name: name.startswith("prompted") and "looser" not in name,
    "all looser": lambda name: "looser" in name,
    "all free paraphrases": lambda name: not name.startswith(("prompted", "all")),
}


# ---------------------------------------------------------------- measuring


def measure(pairs: list[Pair], names: list[str], show: bool) -> dict[str, Any]:
    """Share of seeded errors found, by kind; alarms on the clean ones."""
    rng = random.Random(42)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    alarms = [pair for pair in pairs if faithfulness.check(*pair)]
    for pair in alarms if show else []:
        print("false alarm:", pair[0][:20], [(one.kind, one.span) for one in faithfulness.check(*pair)], file=sys.stderr)
    for pair in pairs:
        clean = set(faithfulness.check(*pair))
        for kind, seed in (REQUIRED | FURTHER).items():
            text = seed(pair, rng, names)
            if text is None or text == pair[2]:
                continue
            hit = bool(set(faithfulness.check(pair[0], pair[1], text)) - clean)
            found[kind]["found" if hit else "missed"] += 1
            if show and not hit:
                print(
                    "missed:",
                    kind,
                    "|",
                    _difference(pair[2], text),
                    "|",
                    _difference(text, pair[2]),
                    "|",
                    pair[1],
                    file=sys.stderr,
                )
    return {"clean": len(pairs), "false alarms": len(alarms), "errors": {kind: dict(found[kind]) for kind in REQUIRED | FURTHER}}


def _difference(clean: str, text: str) -> str:
    start = next(
        (number for number, (one, other) in enumerate(zip(clean, text, strict=False)) if one != other), min(len(clean), len(text))
    )
    return clean[max(0, start - 15) : start + 25].replace("\n", " ")


def pairs_of(path: Path) -> Iterator[tuple[str, Pair]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["set"], (row["question"], row["source"], Answer.from_points(row["points"]).render())


def used_names(folder: Path, pairs: list[Pair]) -> list[str]:
    """Drug names of a public list that doctors of the corpus use: rare chemical names say nothing about rewriting."""
    text = "\n".join(source for _, source, _ in pairs)
    names = (folder / "lexicon/drug_names.txt").read_text(encoding="utf-8").split()
    return [name for name in names if 3 <= len(name) <= 8 and text.count(name) >= 2]


def real(folder: Path, most: int) -> list[Pair]:
    """Real consultations, the answer regrouped into three sections."""
    found: list[Pair] = []
    for path in sorted([*folder.glob("toyhom/*.csv"), *folder.glob("zhongjing/huatuo*")]):
        for row in records.read(path):
            if isinstance(row, records.Record) and 40 < len(row.answer) < 800:
                found.append((row.question, row.answer, regrouped(row.answer)))
    random.Random(3).shuffle(found)
    return found[:most]


def regrouped(text: str) -> str:
    pieces = [piece for piece in re.split(r"(?<=[。！？；])", text.replace("\n", "")) if piece.strip()]
    third = max(1, len(pieces) // 3)
    parts = ["".join(pieces[:third]), "".join(pieces[third : 2 * third]), "".join(pieces[2 * third :])]
    return Answer.from_points([(part or "见下。", "见原文。") for part in parts]).render()


def table(name: str, result: dict[str, Any]) -> None:
    alarms, clean = result["false alarms"], result["clean"]
    print(f"\n{name}: {clean} clean, false alarms {alarms} ({alarms / clean:.1%})")
    for group, kinds in (("required", REQUIRED), ("further", FURTHER)):
        total: Counter[str] = Counter()
        for kind in kinds:
            counts = Counter(result["errors"][kind])
            total += counts
            print(f"  {kind:22}{share(counts)}")
        print(f"  all {group:18}{share(total)}")


def share(counts: Counter[str]) -> str:
    n = counts.total()
    if not n:
        return "    none"
    low, high = interval(counts["found"], n)
    return f"{counts['found']:5} of {n:5} found  {counts['found'] / n:7.1%}  (95 %: {low:.1%} to {high:.1%})"


def interval(found: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval."""
    z = 1.96
    middle, spread = found / n + z * z / (2 * n), z * math.sqrt(found / n * (1 - found / n) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, help="folder with toyhom/, zhongjing/ and lexicon/")
    parser.add_argument("--rows", type=int, default=2000, help="most rows of the corpus")
    parser.add_argument("--show", action="store_true", help="print what was missed and what was a false alarm")
    options = parser.parse_args()
    groups: dict[str, list[Pair]] = defaultdict(list)
    for file in ("prompted", "pairs"):
        for name, pair in pairs_of(HERE / f"faithfulness_{file}.jsonl"):
            groups[name].append(pair)
    for kind, names in KINDS.items():
        groups[kind] = [pair for name, pairs in groups.items() if names(name) for pair in pairs]
    results = {name: measure(pairs, DRUGS, options.show) for name, pairs in groups.items()}
    if options.corpus:
        pairs = real(options.corpus, options.rows)
        results["real"] = measure(pairs, used_names(options.corpus, pairs), options.show)
    for name, result in results.items():
        table(name, result)
    print("\nat first look:")
    for name, seen in FIRST_LOOK.items():
        alarms = interval(seen["false alarms"], seen["clean"])
        found = (
            f"  found {share(Counter(found=seen['found'], missed=seen['seeded'] - seen['found']))}" if "seeded" in seen else ""
        )
        print(
            f"  {name:26}false alarms {seen['false alarms']:3} of {seen['clean']:3} ({alarms[0]:.0%} to {alarms[1]:.0%}){found}"
        )
    save("faithfulness", {**results, "first_look": FIRST_LOOK})


if __name__ == "__main__":
    main()
