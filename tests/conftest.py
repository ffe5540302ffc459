"""What tests share: the folder of real corpora (present in development and CI only) and tiny models of the real architecture."""

import os
import shutil
from pathlib import Path

import pytest

from xinglin import config

BASE = config.DEMO / "base"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the repository; tests that read real corpora skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        assert "CI" not in os.environ, f"CI needs {folder.name}/ beside the repository"
        pytest.skip("needs the folder shared/ with real corpora beside the repository")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    from xinglin import engine

    return engine.load_tokenizer(BASE)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: two layers, the built-in tokenizer; loads and tunes in a second."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    for path in BASE.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    torch.manual_seed(1)
    shape = Qwen2Config.from_pretrained(BASE)
    shape.update(
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "layer_types": None}
    )
    Qwen2ForCausalLM(
        Qwen2Config(**{**shape.to_dict(), "layer_types": None, "head_dim": 16, "tie_word_embeddings": False})
    ).save_pretrained(folder)
    return folder
