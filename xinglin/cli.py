"""The command line: ``xinglin VERB recipe.yaml [key=value …]``; every command imports its stage when it runs.

Exit 0: all that was asked for is done. 2: something the user can mend, in one line. 130: interrupted; run again to go on.
`evaluate --gate`: 1 refused, 3 cannot tell.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from xinglin import __version__

if TYPE_CHECKING:
    from xinglin.config import Recipe

STAGES = {
    "clean": "xinglin.data.clean",
    "rewrite": "xinglin.data.rewrite",
    "split": "xinglin.data.split",
    "train": "xinglin.train.stage",
    "evaluate": "xinglin.evaluate.compare",
    "export": "xinglin.export",
}
DEMO = Path(__file__).resolve().parents[1] / "recipes" / "demo.yaml"
RESULTS = {
    "1-clean/report.html": "cleaning",
    "3-split": "rows",
    "4-train/adapter": "adapter",
    "4-train/report.html": "loss curves",
    "5-evaluate/report.html": "comparison",
}
RUN = ("clean", "rewrite", "split", "train", "evaluate")
HELP = {
    "clean": "read corpora of any shape, normalise, filter, mask personal data, remove duplicates",
    "rewrite": "put answers into the three sections through a language model",
    "split": "divide the rows into train, validation and test, no group across two of them",
    "train": "tune an adapter on the training rows",
    "evaluate": "answer the same questions with base and tuned, compare them with statistics",
    "export": "write the merged model, GGUF and model card",
}


def execute(name: str, recipe: "Recipe") -> dict[str, Any]:
    """Run one stage unless its result is up to date; returns the facts it reports."""
    from xinglin import processes, records

    if processes.count() > 1 and name != "train":
        raise ValueError(f"{name}: runs in one process; start only `xinglin train` under torchrun or accelerate launch")
    stage = importlib.import_module(STAGES[name])
    folder = recipe.folder / stage.FOLDER
    expected = records.manifest(stage.inputs(recipe), stage_settings(stage, recipe))
    if records.finished(folder, expected):
        facts: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["facts"]
        say(f"{name}: up to date, skipped ({folder})")
        return facts
    if processes.first():
        (folder / "manifest.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    outputs, facts = stage.run(recipe, folder)
    facts["seconds"] = round(time.monotonic() - started, 1)
    if processes.first():
        records.finish(folder, expected, outputs, facts)
        say(f"{name}: {summary(facts)} -> {folder}")
    return facts


def stage_settings(stage: ModuleType, recipe: "Recipe") -> dict[str, Any]:
    """The part of the recipe that decides the stage's result: the top-level keys it names in SETTINGS."""
    values = recipe.model_dump(mode="json")
    return {key: values[key] for key in stage.SETTINGS}


def summary(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if isinstance(value, int | float | str))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command_stage(options: argparse.Namespace) -> int:
    from xinglin import config

    execute(options.verb, config.load(options.recipe, options.overrides))
    return 0


def command_clean(options: argparse.Namespace) -> int:
    if not options.trace:
        return command_stage(options)
    from xinglin import config
    from xinglin.data import lineage

    print(lineage.trace(config.load(options.recipe, options.overrides), options.trace))
    return 0


def command_rewrite(options: argparse.Namespace) -> int:
    if not (options.dry_run or options.status):
        return command_stage(options)
    from xinglin import config
    from xinglin.data import rewrite

    recipe = config.load(options.recipe, options.overrides)
    print(rewrite.status(recipe) if options.status else rewrite.dry_run(recipe))
    return 0


def command_run(options: argparse.Namespace) -> int:
    from xinglin import config

    run_all(config.load(options.recipe, options.overrides))
    return 0


def run_all(recipe: "Recipe") -> None:
    """Every stage in order, then where its results lie, on stdout."""
    for name in RUN:
        execute(name, recipe)
    for name, text in RESULTS.items():
        print(f"{text:12} {recipe.folder / name}")


def command_demo(options: argparse.Namespace) -> int:
    from xinglin import config

    if not DEMO.is_file():
        raise ValueError(f"demo: {DEMO} is missing; the demo runs from a clone of the repository")
    recipe = config.load(DEMO, options.overrides)
    run_all(recipe)
    if not options.no_serve:
        from xinglin.serve import launch

        launch.serve(recipe, browse=True)
    return 0


def command_doctor(options: argparse.Namespace) -> int:
    from xinglin import config, doctor

    print("\n".join(doctor.facts()))
    if options.recipe is None:
        return 0
    recipe = config.load(options.recipe, options.overrides)
    print("\n".join(doctor.plan(recipe)))
    found = doctor.problems(recipe)
    print("\n".join(found) or f"{options.recipe}: fits this machine")
    return 2 if found else 0


def command_chat(options: argparse.Namespace) -> int:
    from xinglin import config
    from xinglin.serve import chat

    recipe = config.load(options.recipe, options.overrides)
    chat.chat(recipe, options.adapter, options.question, options.base, options.compare)
    return 0


def command_serve(options: argparse.Namespace) -> int:
    from xinglin import config
    from xinglin.serve import launch

    launch.serve(config.load(options.recipe, options.overrides))
    return 0


def command_evaluate(options: argparse.Namespace) -> int:
    from xinglin import config

    recipe = config.load(options.recipe, options.overrides)
    execute("evaluate", recipe)
    if not options.gate:
        return 0
    from xinglin.evaluate import compare

    outcome = compare.gate(recipe)
    say("\n".join(outcome.lines))
    return outcome.code


def command_compare(options: argparse.Namespace) -> int:
    from xinglin.evaluate import compare

    compare.two(options.first, options.second, options.questions, options.output, options.max_new_tokens, options.quantization)
    say(f"compare: {options.output / 'report.html'}")
    return 0


OWN = {"clean": command_clean, "rewrite": command_rewrite, "evaluate": command_evaluate}


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="xinglin", description="Tune a Qwen chat model into a Chinese medical assistant.")
    main_parser.add_argument("--version", action="version", version=f"xinglin {__version__}")
    verbs = main_parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in HELP.items():
        verb = add_verb(verbs, name, text, OWN.get(name, command_stage))
        if name == "clean":
            verb.add_argument("--trace", metavar="FILE:LINE", help="print what became of this line of a corpus; clean nothing")
        if name == "rewrite":
            verb.add_argument("--dry-run", action="store_true", help="print rows, tokens and price; send nothing")
            verb.add_argument("--status", action="store_true", help="print what a running or stopped journal holds")
        if name == "evaluate":
            verb.add_argument("--gate", action="store_true", help="exit 1: should not go out; 3: worse, n too small to tell")
    compare = verbs.add_parser("compare", help="any two models, adapters, answer files or endpoints on the same questions")
    for side, text in (
        ("first", "A: model or adapter folder, hub name, .jsonl of answers, results.json, URL#MODEL"),
        ("second", "B: the same"),
    ):
        compare.add_argument(side, metavar=side.upper(), help=text)
    compare.add_argument("--questions", type=Path, required=True, help="corpus, .jsonl with questions, or .txt, one a line")
    compare.add_argument(
        "--max-new-tokens", type=positive, default=1024, metavar="N", help="longest answer in tokens, on both sides"
    )
    compare.add_argument("--quantization", choices=("none", "nf4", "int8"), default="none", help="how models are held here")
    compare.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder of the report")
    compare.set_defaults(command=command_compare)
    add_verb(verbs, "run", "clean, rewrite, split, train and evaluate, skipping what is up to date", command_run)
    add_chat(verbs)
    demo = verbs.add_parser("demo", help="the whole flow on the built-in sample and model, then the page")
    demo.add_argument("--no-serve", action="store_true", help="stop before serving the page")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe to set for this run")
    demo.set_defaults(command=command_demo)
    doctor = verbs.add_parser("doctor", help="what this machine has, and whether a recipe fits it")
    doctor.add_argument("recipe", type=Path, nargs="?", help="a recipe to check")
    doctor.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe to set")
    doctor.set_defaults(command=command_doctor)
    add_verb(verbs, "serve", "serve the page and an OpenAI-compatible API", command_serve)
    return main_parser


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_chat(verbs: Any) -> None:
    verb = add_verb(
        verbs, "chat", "talk with the tuned model in the terminal; reads one question from -q or a pipe", command_chat
    )
    verb.add_argument("--adapter", type=Path, metavar="DIR", help="adapter folder, instead of the run's own")
    verb.add_argument("-q", "--question", default="", metavar="TEXT", help="answer this one question and leave")
    verb.add_argument("--base", action="store_true", help="the base model, without the adapter")
    verb.add_argument("--compare", action="store_true", help="base and tuned, one after the other")


def add_verb(verbs: Any, name: str, text: str, command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("recipe", type=Path, help="the recipe, a YAML file")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe to set for this run")
    verb.set_defaults(command=command)
    return verb


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; key=value is an override wherever it stands, also behind an option."""
    main_parser = parser()
    options, rest = main_parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("-") or "=" not in word]:
        main_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    except (ValueError, OSError) as error:
        say(f"xinglin: {one_line(error)}")
        return 2


def one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
