"""GGUF: a merged Qwen2 folder as one file for llama.cpp, Ollama and OpenVINO, with an Ollama Modelfile beside it.

In: a folder with ``config.json``, ``tokenizer.json`` and safetensors of the qwen2 architecture. Out: ``model.gguf`` (float16
matrices, float32 norms and biases) and ``Modelfile`` with the chat template, the system text and the end token.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from xinglin import records, schema

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write(model: Path, folder: Path) -> list[Path]:
    """Write ``model.gguf`` and ``Modelfile``. Raises ``ValueError`` for another architecture than qwen2."""
    import gguf

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "qwen2":
        raise ValueError(f"export: GGUF is written for qwen2 models only, {model} is {config['model_type']}")
    path, temporary = folder / "model.gguf", folder / ".model.gguf"
    writer = gguf.GGUFWriter(temporary, "qwen2")
    add_settings(writer, config)
    add_tokenizer(writer, model, config)
    for name, tensor in tensors(model):
        matrix = tensor.ndim > 1
        writer.add_tensor(name, tensor.to(torch.float16 if matrix else torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.rename(path)
    records.write_text(folder / "Modelfile", modelfile())
    return [path, folder / "Modelfile"]


def add_settings(writer: Any, config: dict[str, Any]) -> None:
    writer.add_name("xinglin")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_file_type(1)  # mostly float16


def add_tokenizer(writer: Any, model: Path, config: dict[str, Any]) -> None:
    """Vocabulary, merges and chat template; ids that the embedding has but the tokenizer has not are padded."""
    data = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    words: dict[str, int] = data["model"]["vocab"]
    added = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    by_id = {i: token for token, i in (words | added).items()}
    size = config["vocab_size"]
    special = set(added.values())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([3 if i in special else 1 if i in by_id else 5 for i in range(size)])  # control, normal, unused
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]])
    writer.add_eos_token_id(added["<|im_end|>"])
    writer.add_pad_token_id(added["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((model / "chat_template.jinja").read_text(encoding="utf-8"))


def tensors(model: Path) -> list[tuple[str, torch.Tensor]]:
    """(GGUF name, tensor) of every weight, in the order of the files."""
    found = []
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found += [(rename(name), file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118 - no mapping
    return found


def rename(name: str) -> str:
    """``model.layers.3.self_attn.q_proj.weight`` is ``blk.3.attn_q.weight``."""
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in fixed:
        return fixed[name]
    _, _, layer, *middle, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(middle)]}.{kind}"


def modelfile() -> str:
    """Ollama's recipe for the file: the training prompt as its template, the end token as its stop."""
    return f'''FROM ./model.gguf
TEMPLATE """{{{{- range .Messages }}}}<|im_start|>{{{{ .Role }}}}
{{{{ .Content }}}}<|im_end|>
{{{{ end }}}}<|im_start|>assistant
"""
SYSTEM """{schema.SYSTEM}"""
PARAMETER stop "<|im_end|>"
PARAMETER temperature 0
'''
