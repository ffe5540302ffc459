"""One job of bench/train.py on ms-swift, from its own row format through its own template to its own trainer."""

import json
import os
import sys
from pathlib import Path

import meter

os.environ |= {"HF_HUB_OFFLINE": "1", "USE_HF": "1"}

from swift import SftArguments, sft_main
from transformers import Trainer


def main() -> None:
    job = meter.read(sys.argv[1])
    gauge = meter.Meter(job)
    gauge.attach(Trainer)
    folder = Path(job["folder"])
    lines = [json.loads(line)["messages"] for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in lines)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    sft_main(SftArguments(
        model=job["model"], model_type="qwen2", template="qwen2_5", dataset=[str(folder / "rows.jsonl")], tuner_type="lora",
        lora_rank=job["rank"], lora_alpha=job["alpha"], lora_dropout=0.0, target_modules=["all-linear"], torch_dtype="float32",
        max_length=1024, output_dir=str(folder), per_device_train_batch_size=job["micro"], attn_impl="sdpa",
        gradient_accumulation_steps=job["accumulate"], learning_rate=job["learning_rate"], num_train_epochs=job["epochs"],
        lr_scheduler_type="cosine", warmup_steps=job["warmup"], weight_decay=0.0, logging_steps=5, report_to=["none"],
        gradient_checkpointing=False, split_dataset_ratio=0.0, dataloader_num_workers=0, dataset_num_proc=1, seed=42,
        add_version=False, save_strategy="steps", save_steps=10_000, use_cpu=True,
    ))  # fmt: skip
    gauge.save()
    last = sorted(folder.glob("checkpoint-*"))[-1]
    last.rename(folder / "adapter")


if __name__ == "__main__":
    main()
