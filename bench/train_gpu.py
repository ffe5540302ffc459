"""Training on one GPU with random weights in the shape of Qwen2.5-7B: speed does not depend on their values. Under 8 minutes.

    bash bench/peers/gpu.sh && .peers/gpu/bin/python bench/train_gpu.py          # --tiny: a small shape, also without a GPU

Sides, on the same rows (lengths as in bench/train.py's ``mixed``, 0.64 tokens a character, one prompt before all of them):
xinglin     bf16 LoRA r 32 on all linear layers, as `xinglin train` runs it
checkpoint  the same with gradient checkpointing
fp8         the same with the frozen layers multiplied in FP8 (torchao); the losses stand beside the rates
original    plain Trainer with the settings this project began from: rows cut at 512 tokens, 4 x 2, checkpointing, every token
            supervised
trl         SFTTrainer's defaults at the same batch
Reported for each: tokens a second (real ones of the rows, and supervised), peak memory, for Xinglin's the planner's figure
beside it (aim: within 15 %), and the share of the measured bf16 matmul rate at 4 x parameters a token (aim: 60 %). A side whose
package is missing says so. Writes bench/results/train_gpu.json; --tiny writes nothing, its figures mean nothing.
"""

import argparse
import gc
import importlib.util
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
import train as bench_train
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments, set_seed

from xinglin import config, planner
from xinglin.engine import IGNORED
from xinglin.train import log, model, rows, trainer

SHAPE = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
    "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 32768, "pad_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
        "vocab_size": 512}  # fmt: skip
PROMPT = 70  # tokens of the system prompt
RATE = 0.64  # tokens a Chinese character
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a small shape, to see that everything runs")
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    options = parser.parse_args()
    if not (GPU or options.tiny):
        raise SystemExit("no GPU here; --tiny runs a small shape on the processor")
    shape = {**SHAPE, **(TINY if options.tiny else {})}
    made = make_rows(shape["vocab_size"], 96 if options.tiny else 320)
    peak = matmul_rate(512 if options.tiny else 8192)
    print(f"{device()}; bf16 matmul {peak / 1e12:.1f} TFLOP/s", flush=True)
    results: dict[str, Any] = {"device": device(), "matmul_tflops": round(peak / 1e12, 2), "rows": describe(made)}
    for name in options.sides:
        results[name] = run_side(name, shape, made, peak)
        print(f"{name:11} {results[name]}", flush=True)
    if not options.tiny:
        common.save("train_gpu", results)


def device() -> str:
    return str(torch.cuda.get_device_name()) if GPU else "processor"


def run_side(name: str, shape: dict[str, Any], made: list[rows.Row], peak: float) -> dict[str, Any]:
    needed = {"fp8": "torchao", "trl": "trl"}.get(name)
    if needed and importlib.util.find_spec(needed) is None:
        return {"skipped": f"{needed} is not installed; bash bench/peers/gpu.sh"}
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    set_seed(42)
    base = make_base(shape)
    parameters = base.num_parameters()
    with tempfile.TemporaryDirectory() as folder:
        found = SIDES[name](base, made, Path(folder))
    found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2) if GPU else None
    found["matmul_share"] = round(4 * parameters * found["tokens_per_second"] / peak, 3)
    if "planned_gib" in found and GPU:
        found["planned_over_measured"] = round(found["planned_gib"] / found["peak_gib"], 3)
    return found


def make_base(shape: dict[str, Any]) -> Qwen2ForCausalLM:
    """Random weights, made on the device: 15 GB of them take seconds there."""
    dtype = torch.bfloat16 if GPU else torch.float32
    torch.set_default_dtype(dtype)
    try:
        with torch.device(DEVICE):
            base = Qwen2ForCausalLM(Qwen2Config(**shape))
    finally:
        torch.set_default_dtype(torch.float32)
    return base


def make_rows(vocabulary: int, count: int) -> list[rows.Row]:
    """Random ids behind one prompt; what follows the question is supervised."""
    random_ = random.Random(3)
    prompt = [random_.randrange(3, vocabulary) for _ in range(PROMPT)]
    lengths = [
        pair
        for each in bench_train.LENGTHS.values()
        for pair in bench_train.draw(*each, random_, count // len(bench_train.LENGTHS) + 1)
    ]
    made: list[rows.Row] = []
    for question, answer in random_.sample(lengths, count):
        asked, told = int(RATE * question) + 6, int(RATE * (answer + 150)) + 2  # 150: titles, points, what is not mentioned
        ids = [random_.randrange(3, vocabulary) for _ in range(asked + told)]
        made.append({"input_ids": prompt + ids, "labels": [IGNORED] * (PROMPT + asked) + ids[asked:]})
    return made


def describe(made: list[rows.Row]) -> dict[str, Any]:
    found = rows.Rows(made, 0)
    return {"count": len(made), "tokens": found.tokens, "supervised_share": round(found.supervised / found.tokens, 3)}


def matmul_rate(size: int) -> float:
    """Floating-point operations a second of a square bf16 product."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronize()
    began = time.perf_counter()
    for _ in range(10):
        a @ b
    synchronize()
    return 10 * 2 * size**3 / (time.perf_counter() - began)


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


# ---------------------------------------------------------------- measuring


class Clock:
    """Seconds and supervised tokens between the beginning of the third optimizer step and the end of the last."""

    def __init__(self, accumulate: int) -> None:
        self.accumulate, self.micro, self.supervised, self.real, self.began = accumulate, 0, 0, 0, 0.0

    def measure(self, made: Trainer) -> dict[str, Any]:
        original: Callable[..., torch.Tensor] = made.training_step

        def training_step(model: Any, inputs: Any, *rest: Any, **named: Any) -> torch.Tensor:
            if self.micro == 2 * self.accumulate:
                synchronize()
                self.began, self.supervised, self.real = time.perf_counter(), 0, 0
            self.micro += 1
            self.supervised += int((inputs["labels"][:, 1:] != IGNORED).sum())
            mask = inputs.get("attention_mask")
            self.real += int(mask.sum()) if mask is not None else 0
            return original(model, inputs, *rest, **named)

        made.training_step = training_step  # type: ignore[method-assign]
        done = made.train()
        synchronize()
        return {"seconds": time.perf_counter() - self.began, "supervised": self.supervised, "real": self.real,
                "loss": round(done.training_loss, 4)}  # fmt: skip


def rates(found: dict[str, Any], real: float) -> dict[str, Any]:
    seconds = found["seconds"]
    return {"tokens_per_second": round(real / seconds), "supervised_tokens_per_second": round(found["supervised"] / seconds),
            "seconds": round(seconds, 2), "loss": found["loss"]}  # fmt: skip


# ---------------------------------------------------------------- sides


def xinglin(base: Qwen2ForCausalLM, made: list[rows.Row], folder: Path, **settings: Any) -> dict[str, Any]:
    """Through the trainer of the train stage."""
    values = {
        "rank": 32,
        "alpha": 64,
        "epochs": 1,
        "batch_size": 16,
        "micro_batch_size": 4,
        "learning_rate": 1e-4,
        "evaluations": 1,
    }
    recipe = config.build({"name": "run", "model": "demo", "runs": str(folder), "train": {**values, **settings}})
    shape = planner.shape({**base.config.to_dict(), "model_type": "qwen2"})
    train = rows.Rows(made, 0)
    tuned = model.add_adapter(base, recipe)
    ready = trainer.make_trainer(tuned, recipe, train, rows.Rows([], 0), folder / "checkpoints", log.Log(folder / "log.jsonl", 0))
    found = Clock(4).measure(ready)
    longest = sorted((len(row["input_ids"]) for row in made), reverse=True)[:4]
    told = sorted((sum(label != IGNORED for label in row["labels"]) for row in made), reverse=True)[:4]
    plan = planner.plan(shape, recipe.train, 2**50, GPU, planner.Rows(sum(longest), sum(told), 4))
    share = describe(made)["supervised_share"]
    return {**rates(found, found["supervised"] / share), "planned_gib": round((plan.need - planner.CONTEXT) / 2**30, 2)}


def checkpoint(base: Qwen2ForCausalLM, made: list[rows.Row], folder: Path) -> dict[str, Any]:
    return xinglin(base, made, folder, gradient_checkpointing=True)


def fp8(base: Qwen2ForCausalLM, made: list[rows.Row], folder: Path) -> dict[str, Any]:
    """The frozen linear layers multiply in FP8, scaled by tensor; where there is no such unit torchao computes it in bf16."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(base.model, config=Float8LinearConfig(emulate=not GPU))
    found = xinglin(base, made, folder)
    del found["planned_gib"]  # the planner does not know of it
    return found


def original(base: Qwen2ForCausalLM, made: list[rows.Row], folder: Path) -> dict[str, Any]:
    cut = [{"input_ids": row["input_ids"][:512], "attention_mask": [1] * len(row["input_ids"][:512])} for row in made]
    for row in cut:
        row["labels"] = row["input_ids"]
    tuned = get_peft_model(base, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"))
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False}, bf16=GPU, use_cpu=not GPU,
        learning_rate=1e-4, report_to="none", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=GPU,
        train_sampling_strategy="group_by_length",
    )  # fmt: skip
    found = Clock(2).measure(Trainer(tuned, arguments, train_dataset=cut, data_collator=DataCollatorForSeq2Seq(tokenizer())))
    return rates(found, found["real"])


def trl(base: Qwen2ForCausalLM, made: list[rows.Row], folder: Path) -> dict[str, Any]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    masks = [[int(label != IGNORED) for label in row["labels"]] for row in made]
    table = Dataset.from_dict({"input_ids": [row["input_ids"] for row in made], "assistant_masks": masks})
    arguments = SFTConfig(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=4, gradient_accumulation_steps=4,
        learning_rate=1e-4, bf16=GPU, use_cpu=not GPU, report_to="none", save_strategy="no", disable_tqdm=True,
        max_length=2048, dataloader_pin_memory=GPU,
    )  # fmt: skip
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    found = Clock(4).measure(SFTTrainer(base, arguments, train_dataset=table, processing_class=tokenizer(), peft_config=lora))
    return rates(found, found["real"])


def tokenizer() -> Any:
    """Any one: the rows are ids already; it pads."""
    from xinglin import engine

    return engine.load_tokenizer(config.DEMO / "base")


SIDES: dict[str, Callable[[Qwen2ForCausalLM, list[rows.Row], Path], dict[str, Any]]] = {
    "xinglin": xinglin, "checkpoint": checkpoint, "fp8": fp8, "original": original, "trl": trl,
}  # fmt: skip


if __name__ == "__main__":
    main()
