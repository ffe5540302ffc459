"""The evaluate stage: base and tuned do the same work; what the tuning changed, with statistics.

In: runs/<name>/4-train/adapter and 3-split/test.jsonl (validation.jsonl where test has no rows). Out: 5-evaluate/answers.jsonl
(every answer as it comes), results.json (all figures) and report.html (Chinese, self-contained). A row of results.json["rows"]::

    {"metric": "complete", "n": 200, "base": {"value": 0.015, …}, "tuned": {"value": 0.98, …}, "difference": {…}, "p_holm": 2e-57}
"""

import json
import math
import platform
import random
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xinglin import __version__, hub, llm, records, schema
from xinglin.config import Recipe
from xinglin.engine import Engine
from xinglin.evaluate import agreement, examine, judge, pairs, probes, report, sides, summary, verdict
from xinglin.evaluate.answers import Result, say
from xinglin.evaluate.sides import Desk, Side
from xinglin.records import Record

FOLDER = "5-evaluate"
SETTINGS = ("model", "hub", "seed", "serve", "evaluate")
JUDGE_TOKENS = 200
BATCH = 16  # questions at once in ``xinglin compare``


def inputs(recipe: Recipe) -> list[Path]:
    refuse_other_rows(recipe)
    exam_files = examine.inputs(recipe)
    if recipe.evaluate.judge_url:
        llm.endpoint(recipe.evaluate.judge_url, recipe.evaluate.judge_model)  # what is wrong with it is said before any work
    return [questions_file(recipe), *hub.tuned_files(recipe.folder / "4-train" / "adapter"), *exam_files]


def refuse_other_rows(recipe: Recipe) -> None:
    """Raise ``ValueError`` where the adapter was trained before the split of today: its rows may be among the questions.

    An adapter without a manifest came from elsewhere, and where there are no training rows nothing can be said.
    """
    trained, rows = recipe.folder / "4-train", recipe.folder / "3-split" / "train.jsonl"
    if (trained / "manifest.json").is_file() and rows.is_file() and not records.made_from(trained, rows):
        raise ValueError(f"evaluate: {trained} was trained on another split, which may hold these questions: run `xinglin train`")


def questions_file(recipe: Recipe) -> Path:
    """The test rows where there are any, else the validation rows."""
    folder = recipe.folder / "3-split"
    for name in ("test.jsonl", "validation.jsonl"):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            return folder / name
    raise ValueError(f"{folder}: no test.jsonl or validation.jsonl with rows; `xinglin split` makes them")


def run(recipe: Recipe, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    settings, source = recipe.evaluate, questions_file(recipe)
    good = [record for record in records.load(source) if record.meta.get("label", True)]  # a bad answer is no reference
    chosen = sample(turns(good), settings.questions, recipe.seed)
    engine = Engine.load(recipe.base, recipe.folder / "4-train" / "adapter", recipe.serve.quantization, recipe.hub)
    sides.canary(engine, [pairs.dialogue(record) for record in chosen[:4]])
    both, desk = sides.pair(engine, recipe.serve.quantization), Desk(folder / "answers.jsonl", settings.batch_size)
    results = compare(chosen, both, desk, settings.max_new_tokens)
    results["safety"] = safety(both, desk, settings.questions, recipe.seed, settings.max_new_tokens)
    results["served"] = served(recipe, chosen, both, desk)
    results["exams"] = examine.exams(recipe, both, desk)
    results["judge"] = review(recipe, results["pairs"], desk, folder)
    results["curves"] = curves(recipe.folder / "4-train" / "log.jsonl")
    results["repeat"] |= repeat(recipe, source, engine.fingerprint)
    return write(folder, results)


def compare(asked: Sequence[Record], both: tuple[Side, Side], desk: Desk, max_new_tokens: int) -> dict[str, Any]:
    """Everything that needs only dialogues and two sides. Questions that one side did not answer are named and left out."""
    base, tuned = (desk.answers(side, [pairs.prompt(record) for record in asked], max_new_tokens) for side in both)
    three = list(zip(asked, base, tuned, strict=True))
    missing = [gap for record, *found in three for gap in _gaps(record, found)]
    answered = [pairs.pair(*one) for one in three if not _gaps(one[0], one[1:])]
    if not answered:
        raise ValueError(f"no question was answered by both sides: {missing[0]['reason']}")
    chosen = [pair.record for pair in answered]
    rows = pairs.rows(answered)
    if all(side.losses for side in both):
        rows += losses([record for record in chosen if record.answer], both, desk)
    if all(side.sample for side in both):
        rows += repeated(chosen, both, desk, max_new_tokens)
    return {
        "names": {"base": "基座", "tuned": "微调"},
        "rows": summary.conclude(rows),
        "missing": missing,
        "notes": _notes(rows, missing),
        "departments": pairs.departments(answered),
        "curves": {"loss": [], "eval_loss": []},
        "pairs": [pairs.as_dict(pair) for pair in answered],
        "repeat": {
            "sides": {side.name: {"label": side.label, "setup": side.setup} for side in both},
            "decoding": {"greedy": True, "max_new_tokens": max_new_tokens},
            "versions": {"xinglin": __version__, "python": platform.python_version(), **versions()},
        },
    }


def _notes(rows: Sequence[summary.Row], missing: Sequence[dict[str, str]]) -> list[str]:
    """What the table does not hold, in Chinese."""
    found, notes = {row["metric"] for row in rows}, []
    if missing:
        notes.append(f"{len({gap['id'] for gap in missing})} 题至少一侧没有回答，列在下面，不计入各项指标")
    if "bleu4" not in found:
        notes.append("题目没有参考回答，因此没有 BLEU、ROUGE、chrF 和损失")
    elif "loss" not in found:
        notes.append("没有损失和困惑度：至少一侧是接口或答案文件，看不到权重，或两侧分词不同")
    if "agreement" not in found:
        notes.append("没有重复抽样的一致性：至少一侧是接口或答案文件")
    return notes


def _gaps(record: Record, found: Sequence[Result]) -> list[dict[str, str]]:
    """The missing answers to one question, of base and tuned."""
    named = zip(("base", "tuned"), found, strict=True)
    return [
        {"id": record.id, "question": record.question[:60], "side": name, "reason": result["missing"]}
        for name, result in named
        if "missing" in result
    ]


def losses(referenced: Sequence[Record], both: tuple[Side, Side], desk: Desk) -> list[summary.Row]:
    """Loss and perplexity of the references that fit into both models; none where their tokens differ: not comparable."""
    dialogues = [pairs.dialogue(record) for record in referenced]
    base, tuned = (desk.losses(side, dialogues) for side in both)
    kept = [index for index in range(len(dialogues)) if "loss" in base[index] and "loss" in tuned[index]]
    if any(base[index]["tokens"] != tuned[index]["tokens"] for index in kept):
        say("evaluate: the two models cut the references into different tokens: no loss and no perplexity")
        return []
    before, after = ([(side[index]["loss"], side[index]["tokens"]) for index in kept] for side in (base, tuned))
    return summary.loss_rows(before, after, [referenced[index].group for index in kept]) if kept else []


def repeated(chosen: Sequence[Record], both: tuple[Side, Side], desk: Desk, max_new_tokens: int) -> list[summary.Row]:
    """Agreement of repeated samples on the first questions, each side with itself."""
    prompts = [pairs.prompt(record) for record in chosen[: agreement.QUESTIONS]]
    base, tuned = (
        list(
            zip(
                *(
                    [found["text"] for found in desk.samples(side, prompts, max_new_tokens, seed)]
                    for seed in range(agreement.SAMPLES)
                ),
                strict=True,
            )
        )
        for side in both
    )
    return agreement.rows(base, tuned)


def versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "bitsandbytes", "sacrebleu", "rouge-score", "jieba", "lm-eval")
    return {name: version(name) for name in names if name != "lm-eval" or find_spec("lm_eval")}


def safety(both: tuple[Side, Side], desk: Desk, most: int, seed: int, max_new_tokens: int) -> list[summary.Row]:
    asked = probes.probes(most, seed)
    prompts = [schema.messages(probe.question) for probe in asked]
    base, tuned = ([found.get("text", "") for found in desk.answers(side, prompts, max_new_tokens, "probe")] for side in both)
    return probes.rows(asked, base, tuned)


def served(recipe: Recipe, chosen: Sequence[Record], both: tuple[Side, Side], desk: Desk) -> list[summary.Row]:
    """The same questions and probes answered as users get them, where serving forces the three sections: structure and safety."""
    if recipe.serve.structure == "free":
        return []
    settings, (base, tuned) = recipe.evaluate, both
    forced = sides.as_served(base), sides.as_served(tuned)
    rows = compare(chosen, forced, desk, settings.max_new_tokens)["rows"]
    kept = [row for row in rows if row["metric"] in ("complete", "stopped", "characters", "repetition", *verdict.TRUTH)]
    return summary.conclude([*kept, *safety(forced, desk, settings.questions, recipe.seed, settings.max_new_tokens)])


def review(recipe: Recipe, answered: Sequence[dict[str, Any]], desk: Desk, folder: Path) -> dict[str, Any] | None:
    """The judge's rows where a judge is set; its replies are kept in answers.jsonl like all others."""
    if not recipe.evaluate.judge_url:
        return None
    target = llm.endpoint(recipe.evaluate.judge_url, recipe.evaluate.judge_model)
    side = sides.of_endpoint(target, "judge")
    kinds = iter(("marks of base", "marks of tuned", "base first", "tuned first"))

    def ask(prompts: Sequence[list[schema.Message]]) -> list[str]:
        return [found.get("text", "") for found in desk.answers(side, list(prompts), JUDGE_TOKENS, next(kinds))]

    return judge.review(answered, ask, side.label, judge.read_labels(folder / "labels.jsonl"))


def write(folder: Path, results: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """results.json, report.html, and the table on stdout."""
    records.write_json(folder / "results.json", finite(results))
    records.write_text(folder / "report.html", report.render(results))
    print(report.table(results))
    complete = summary.by_name(results["rows"])["complete"]
    facts = {"questions": len(results["pairs"])}
    facts |= {f"complete_{side}": round(complete[side]["value"], 4) for side in ("base", "tuned")}
    return [folder / "results.json", folder / "report.html", folder / "answers.jsonl"], facts


def finite(value: Any) -> Any:
    """The value with None for every nan: JSON has none, and other readers stop at it."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def gate(recipe: Recipe) -> verdict.Gate:
    """Whether the evaluated adapter may go out."""
    results = json.loads((recipe.folder / FOLDER / "results.json").read_text(encoding="utf-8"))
    return verdict.gate(results, recipe.evaluate.margin)


def two(first: str, second: str, questions: Path, folder: Path, max_new_tokens: int = 1024, quantization: str = "none") -> None:
    """``xinglin compare A B``: any two models, adapters, answer files or endpoints on the questions of a file."""
    chosen = read_questions(questions)
    both = sides.two(first, second, [pairs.prompt(record) for record in chosen], quantization)
    sides.same_prompt(both)
    results = compare(chosen, both, Desk(folder / "answers.jsonl", BATCH), max_new_tokens)
    results["names"] = {"base": "A", "tuned": "B"}
    options = f"--questions {questions} --max-new-tokens {max_new_tokens} --quantization {quantization}"
    results["repeat"] |= {
        "command": f"xinglin compare {first} {second} {options}",
        "sha256": {str(questions): records.sha256(questions)},
    }
    write(folder, results)


def read_questions(path: Path) -> list[Record]:
    """Records of a corpus file, or questions with or without references: the lines of a .txt, the "question" of a .jsonl."""
    rows = _plain_questions(path)
    found = rows if rows else [row for row in records.read(path) if isinstance(row, Record)]
    if not found:
        raise ValueError(
            f'{path}: no questions; a corpus file, a .jsonl of {{"question": …}}, or a .txt with one question a line'
        )
    if not rows and (left := sum(isinstance(row, records.Rejected) for row in records.read(path))):
        say(f"evaluate: {left} rows of {path} are not used: no question or no answer in them; `xinglin clean` lists each")
    return turns(found)


def _plain_questions(path: Path) -> list[Record]:
    """Questions of a .txt or of a .jsonl whose every line has one; [] for any other file."""
    if path.suffix not in {".txt", ".jsonl"}:
        return []
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        lines = data.decode("gb18030").split("\n")
    if path.suffix == ".txt":
        return [_question(n, line.strip(), "", path) for n, line in enumerate(lines, 1) if line.strip()]
    try:
        rows = [(n, json.loads(line)) for n, line in enumerate(lines, 1) if line.strip()]
        return [_question(n, row["question"].strip(), row.get("answer") or "", path) for n, row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _question(number: int, question: str, answer: str, path: Path) -> Record:
    messages: list[schema.Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Record(str(number), records.digest(question), messages, {"file": path.name, "row": number})


def turns(rows: Sequence[Record]) -> list[Record]:
    """Every answer of a dialogue as a question of its own, with what was said before; those of one dialogue share its group."""
    found = []
    for row in rows:
        ends = [index for index, turn in enumerate(row.messages) if turn["role"] == "assistant"]
        names = [row.id] if len(ends) == 1 else [f"{row.id}#{number}" for number in range(1, len(ends) + 1)]
        found += [replace(row, id=name, messages=row.messages[: end + 1]) for name, end in zip(names, ends, strict=True)]
    return found


def sample(rows: Sequence[Record], most: int, seed: int) -> list[Record]:
    """At most ``most`` rows in their order, the same ones under the same seed."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), most))]


def curves(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Training and validation loss by step; empty where training left no log."""
    if not log.is_file():
        return {"loss": [], "eval_loss": []}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {name: [(line["step"], line[name]) for line in lines if name in line] for name in ("loss", "eval_loss")}


def repeat(recipe: Recipe, source: Path, fingerprint: str) -> dict[str, Any]:
    """What is needed to run the same comparison again, beside the sides."""
    return {
        "command": f"xinglin evaluate RECIPE name={recipe.name} seed={recipe.seed}",
        "questions": str(source),
        "sha256": {str(path): records.sha256(path) for path in inputs(recipe)},
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        "model": {"base": recipe.model, "hub": recipe.hub, "quantization": recipe.serve.quantization},
        "prompt": fingerprint,
    }
