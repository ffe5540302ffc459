"""One job of bench/train.py on LLaMA-Factory, from its own row format through its own template to its own trainer.

Its wheels of torchaudio do not load beside a CPU torch and its multimodal module imports it in any case: an empty one stands in.
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import meter

audio = types.ModuleType("torchaudio")
audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = audio

from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import Trainer  # noqa: E402


def main() -> None:
    job = meter.read(sys.argv[1])
    gauge = meter.Meter(job)
    gauge.attach(Trainer)
    folder = Path(job["folder"])
    rows = [json.loads(line)["messages"] for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    (folder / "rows.json").write_text(json.dumps([{"messages": row} for row in rows], ensure_ascii=False), encoding="utf-8")
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    described = {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": described}), encoding="utf-8")
    run_exp({
        "model_name_or_path": job["model"], "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_target": "all",
        "lora_rank": job["rank"], "lora_alpha": job["alpha"], "lora_dropout": 0.0, "template": "qwen", "dataset": "rows",
        "dataset_dir": str(folder), "cutoff_len": 1024, "output_dir": str(folder / "adapter"),
        "per_device_train_batch_size": job["micro"], "gradient_accumulation_steps": job["accumulate"],
        "learning_rate": job["learning_rate"], "num_train_epochs": job["epochs"], "lr_scheduler_type": "cosine",
        "warmup_steps": job["warmup"], "logging_steps": 5, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_gradient_checkpointing": True, "disable_tqdm": True, "seed": 42, "dataloader_num_workers": 0, "plot_loss": False,
        "dataloader_pin_memory": False,
    })  # fmt: skip
    gauge.save()


if __name__ == "__main__":
    main()
