"""One job of bench/train.py on TRL's SFTTrainer: its defaults, but for the settings every side shares and gradient checkpointing,
which is off on every side (with TRL's own default, on, it is slower still)."""

import sys

import meter
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, set_seed
from trl import SFTConfig, SFTTrainer


def main() -> None:
    job = meter.read(sys.argv[1])
    gauge = meter.Meter(job)
    gauge.attach(Trainer)
    set_seed(42)
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    lora = LoraConfig(r=job["rank"], lora_alpha=job["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = SFTConfig(
        output_dir=job["folder"], num_train_epochs=job["epochs"], per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["accumulate"], learning_rate=job["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=job["warmup"], report_to="none", save_strategy="no", logging_steps=5, disable_tqdm=True, use_cpu=True,
        bf16=False, activation_checkpointing=False, dataloader_pin_memory=False,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    trainer = SFTTrainer(base, arguments, train_dataset=masked(job["rows"]), processing_class=tokenizer, peft_config=lora)
    trainer.train()
    gauge.save()
    trainer.model.save_pretrained(f"{job['folder']}/adapter")


def masked(path: str) -> Dataset:
    """The rows as TRL takes tokenized ones: ids and a mask of what is supervised."""
    rows = Dataset.from_json(path)
    marked = [[int(label != -100) for label in labels] for labels in rows["labels"]]
    return Dataset.from_dict({"input_ids": list(rows["input_ids"]), "assistant_masks": marked})


if __name__ == "__main__":
    main()
