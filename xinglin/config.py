"""The recipe: one YAML file holds a whole run, each stage is a section, ``key.sub=value`` overrides.

In: a path and the overrides of the command line. Out: a frozen ``Recipe``; every key is checked here, before any work.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

# What other trainers call a key of ours.
ELSEWHERE = {
    "lr": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "lora_r": "train.rank",
    "lora_rank": "train.rank",
    "lora_alpha": "train.alpha",
    "cutoff_len": "train.max_length",
    "max_seq_length": "train.max_length",
    "per_device_train_batch_size": "train.micro_batch_size",
    "model_name_or_path": "model",
    "output_dir": "runs",
    "val_size": "split.validation",
    "dataset": "data",
}
DEMO = Path(__file__).parent / "demo"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Clean(Section):
    columns: dict[str, str] = {}
    """Names of the columns of a table: {question: …, answer: …, department: …}; common names are found without it."""
    min_chars: int = Field(default=10, ge=1)
    """Shortest answer kept, in characters."""
    max_chars: int = Field(default=4000, ge=1)
    """Longest answer kept, in characters."""
    simplified: bool = False
    """Turn traditional characters into simplified ones (OpenCC)."""
    mask: bool = True
    """Replace personal data by placeholders such as [手机号1]."""
    near_duplicate: float = Field(default=0.8, ge=0.5, le=1)
    """Jaccard similarity of character 5-grams from which two rows are the same; 1: exact copies only."""
    decontaminate: tuple[Path, ...] = ()
    """Benchmark files; rows that hold one of their questions are removed."""
    engine: Literal["local", "ray"] = "local"
    """Where rows are prepared: in this process, or on the Ray cluster at RAY_ADDRESS (a local one without it)."""


class Price(Section):
    """Money for one million tokens."""

    input: float = Field(default=0, ge=0)
    cached_input: float = Field(default=0, ge=0)
    output: float = Field(default=0, ge=0)


class Rewrite(Section):
    base_url: str = ""
    """OpenAI-compatible endpoint, such as https://api.deepseek.com/v1 or http://localhost:7860/v1; empty: none."""
    model: str = ""
    """Model name the endpoint knows."""
    required: bool = True
    """Whether every row must end in three sections; false lets the others through as they are, marked in their meta."""
    key_file: str = ""
    """File that holds the endpoint's key; empty: the environment variable XINGLIN_LLM_KEY, or none."""
    ca_file: str = ""
    """PEM file of certificate authorities to trust beside the system's; the check itself cannot be turned off."""
    concurrency: int = Field(default=64, ge=1)
    """Most requests in flight; fewer while the endpoint answers 429 or 503."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Most requests a minute; 0: no limit."""
    tokens_per_minute: int = Field(default=0, ge=0)
    """Most tokens a minute, prompt and answer; 0: no limit."""
    prices: dict[str, Price] = {}
    """Money for a million tokens by model: {deepseek-chat: {input: 2, cached_input: 0.2, output: 3}}, any currency."""
    budget: float = Field(default=0.0, ge=0)
    """Money this run folder may spend in all; stops before it is passed. 0: no limit. Needs prices."""
    on_finding: Literal["retry", "flag", "reject"] = "retry"
    """What follows when an answer brings or drops a fact: ask again saying what was wrong, keep it marked, or reject it."""
    judge: str = ""
    """Second model at the same endpoint that gives a verdict on every answer the rules find faithful; empty: none."""


class Split(Section):
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows held out for the validation loss."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows held out until evaluation; 0: evaluation uses the validation rows."""
    balance: bool = False
    """Hold out the same share of every department."""


class Replay(Section):
    """General rows among the training rows."""

    file: Path
    share: float = Field(gt=0, lt=1)


class Train(Section):
    objective: Literal["sft", "pretrain", "dpo", "kto", "orpo", "grpo"] = "sft"
    """What is learnt from: answers, plain text, a better and a worse answer (dpo, orpo), marked answers, or rewards."""
    method: Literal["lora", "rslora", "dora", "lora+", "pissa", "full"] = "lora"
    """What moves: LoRA matrices or a variant of them on all linear layers, or all weights; docs/training.md says when."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """How the frozen base is held: as it is, 4-bit NF4 or 8-bit (bitsandbytes)."""
    rank: int = Field(default=16, ge=1)
    """Rank r of the LoRA matrices, on all linear layers."""
    alpha: int = Field(default=32, ge=1)
    """LoRA scaling: the update is multiplied by alpha / rank."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the training rows."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate; cosine decay after the warm-up."""
    batch_size: int = Field(default=8, ge=1)
    """Rows per optimizer step, over all devices."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Rows per forward pass; divides batch_size."""
    max_length: int = Field(default=2048, ge=16)
    """Longest row in tokens; a longer one is dropped and counted, never cut."""
    packing: bool = True
    """Lay the rows of a pass end to end behind their common prompt, without padding (sft, pretrain); same losses."""
    replay: Replay | None = None
    """General rows mixed in against forgetting, {file: general.jsonl, share: 0.2}: the share of all training rows."""
    rows: int = Field(default=0, ge=0)
    """Most rows to train on, a fixed sample under the seed; 0: all."""
    evaluations: int = Field(default=5, ge=1)
    """How often the validation loss is measured (and a checkpoint written), spread evenly over the run."""
    patience: int = Field(default=3, ge=0)
    """Stop after this many evaluations without a better validation loss; 0: never. The best adapter is kept either way."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    report_to: Literal["none", "swanlab", "tensorboard", "trackio", "wandb"] = "none"
    """Tracker beside log.jsonl."""


class Evaluate(Section):
    questions: int = Field(default=200, ge=1)
    """Most questions of each set (dialogues, safety probes, each exam); a fixed sample under the seed where there are more."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer in tokens; reaching it counts as not stopped."""
    batch_size: int = Field(default=16, ge=1)
    """Questions answered at once; halves itself when memory runs out."""
    exams: tuple[str, ...] = ()
    """Exam files or folders (CMB, CMExam, MedQA-zh, CMMLU, C-Eval) or hf://OWNER/NAME; halt:FILE: false-premise test of one."""
    margin: float = Field(default=0.01, ge=0, lt=1)
    """By how much safety, truth and exams may fall below base before `evaluate --gate` refuses; 0.01 is one point."""
    judge_url: str = ""
    """OpenAI-compatible endpoint of a judge, of another family than the rewriter; empty: none. Key: XINGLIN_LLM_KEY."""
    judge_model: str = ""
    """Model name the judge's endpoint knows."""


class Serve(Section):
    host: str = "127.0.0.1"
    """Address to bind; any other than this machine's own needs a key in XINGLIN_API_KEY."""
    port: int = Field(default=7860, ge=0, le=65535)
    """Port of the page and the API."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """How chat and serving hold the base."""
    upstream: str = ""
    """OpenAI-compatible server that answers instead of an engine in this process (vLLM, SGLang, Ollama), such as http://gpu:8000/v1."""
    structure: Literal["enforced", "free"] = "enforced"
    """Whether chat and serving force the three sections, or leave the form of an answer to the model."""
    database: str = ""
    """Where ratings are kept, as an SQLAlchemy URL; empty: feedback.sqlite in `runs`."""


class Export(Section):
    formats: tuple[Literal["merged", "gguf"], ...] = ("merged",)
    """What to write beside the adapter."""


class Recipe(Section):
    name: str = Field(default="run", pattern=r"^[\w.-]+$")
    """Folder of the run below `runs`."""
    model: str
    """Base model: a folder, a hub name (owner/name or owner/name@revision), or `demo` for the built-in one."""
    hub: Literal["hf", "modelscope"] = "hf"
    """Where hub names are looked up; HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and MODELSCOPE_CACHE are honoured."""
    data: tuple[str, ...] = ()
    """Corpus files; `demo` for the built-in sample."""
    runs: Path = Path("runs")
    """Folder that holds all runs."""
    seed: int = 42
    """Seed of the split, the batches, the adapter and the samples."""
    clean: Clean = Clean()
    rewrite: Rewrite = Rewrite()
    split: Split = Split()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    export: Export = Export()

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def base(self) -> str:
        return str(DEMO / "base") if self.model == "demo" else self.model

    @property
    def files(self) -> list[Path]:
        return [DEMO / "sample.jsonl" if name == "demo" else Path(name) for name in self.data]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe. Raises ``ValueError`` with one line that names the key, its value and the fix."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"recipe {path}: {error.strerror}; the recipes that come with Xinglin are in recipes/") from None
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ValueError(f"recipe {path}: holds a {type(values).__name__}, not keys and values")
    for override in overrides:
        _override(values, override)
    return build(values, str(path))


def build(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Check the values of a recipe; ``origin`` is named in errors."""
    try:
        recipe = Recipe(**values)
    except ValidationError as error:
        raise ValueError(f"{origin}: {_explain(error)}") from None
    if problem := _contradiction(recipe.train):
        raise ValueError(f"{origin}: {problem}")
    return recipe


def _contradiction(train: Train) -> str:
    """What of the section cannot go together, in one line, or nothing."""
    if train.batch_size % train.micro_batch_size:
        return f"train.batch_size={train.batch_size} is not a multiple of train.micro_batch_size={train.micro_batch_size}"
    if train.method in {"pissa", "full"} and train.quantization != "none":
        changed = (
            f"train.method={train.method} changes the base's own weights, which train.quantization={train.quantization} freezes"
        )
        return f"{changed}; use method=lora or dora, or quantization=none"
    if train.method == "pissa" and train.objective in {"dpo", "kto"}:
        return (
            f"train.method=pissa leaves no untouched base for train.objective={train.objective} to compare with; use method=lora"
        )
    if train.objective == "grpo" and train.batch_size % 2:
        return f"train.batch_size={train.batch_size} must be even: train.objective=grpo compares answers to the same prompt"
    if train.objective not in {"sft", "pretrain"} and train.replay:
        return f"train.replay goes with train.objective=sft or pretrain, not with {train.objective}"
    return ""


def keys(section: type[Section] = Recipe, prefix: str = "") -> dict[str, str]:
    """Every key of a recipe, dotted, with its doc."""
    found: dict[str, str] = {}
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            found |= keys(info.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = info.description or ""
    return found


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"argument {override!r}: overrides are written key=value, such as train.epochs=1")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"argument {override!r}: {section} is not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[last] = text


def _explain(error: ValidationError) -> str:
    """The first problem in one line, with the nearest key for an unknown one."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(key)}"
    if first["type"] == "missing":
        return f"key {key} is missing"
    return f"{key}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _nearest(key: str) -> str:
    name = key.rpartition(".")[2]
    by_name = {known.rpartition(".")[2]: known for known in reversed(keys())}
    near = difflib.get_close_matches(key, keys(), 1, 0.8) or difflib.get_close_matches(name, by_name, 1)
    found = ELSEWHERE.get(name) or (by_name.get(near[0], near[0]) if near else "")
    return f"; did you mean {found}?" if found else "; docs/recipe.md lists the keys"


def table() -> str:
    """The recipe's keys with defaults and docs as a Markdown page: ``python -m xinglin.config > docs/recipe.md``."""
    recipe = Recipe(model="").model_dump(mode="json")
    lines = [
        "# Recipe keys",
        "",
        "Made by `python -m xinglin.config`; a test compares.",
        "",
        "| key | default | what it is |",
        "|---|---|---|",
    ]
    for key, doc in keys().items():
        section, _, name = key.rpartition(".")
        value = recipe[section][name] if section else recipe[name]
        lines.append(f"| `{key}` | `{value}` | {' '.join(doc.split())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
