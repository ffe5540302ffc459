"""An adapter without training."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from xinglin import records
from xinglin.engine import load_tokenizer, prompt_fingerprint


def adapter(base: Path, folder: Path, spread: float) -> None:
    """An adapter whose B matrices have this standard deviation; 0 is an adapter that changes nothing."""
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=spread)
    model.save_pretrained(folder)
    records.write_json(folder / "xinglin.json", {"fingerprint": prompt_fingerprint(load_tokenizer(base))})
