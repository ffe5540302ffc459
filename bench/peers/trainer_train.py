"""One job of bench/train.py on plain transformers.Trainer with PEFT: padded batches in random order, every default kept."""

import sys

import meter
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed


def main() -> None:
    job = meter.read(sys.argv[1])
    gauge = meter.Meter(job)
    gauge.attach(Trainer)
    set_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    lora = LoraConfig(r=job["rank"], lora_alpha=job["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    rows = Dataset.from_json(job["rows"]).remove_columns("messages")
    arguments = TrainingArguments(
        output_dir=job["folder"], num_train_epochs=job["epochs"], per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["accumulate"], learning_rate=job["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=job["warmup"], report_to="none", save_strategy="no", logging_steps=5, disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    model = get_peft_model(base, lora)
    Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer)).train()
    gauge.save()
    model.save_pretrained(f"{job['folder']}/adapter")


if __name__ == "__main__":
    main()
