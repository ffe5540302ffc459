"""Where a model comes from: a folder, the Hugging Face hub (or a mirror of it), or ModelScope.

In: a path, or a name such as ``Qwen/Qwen2.5-7B-Instruct`` or ``Qwen/Qwen2.5-7B-Instruct@<branch, tag or commit>``. Out: a local
folder with config, tokenizer and safetensors.
"""

import os
import re
from pathlib import Path

FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt"]
LAYOUT = "config.json, tokenizer.json, tokenizer_config.json, *.safetensors"


def find_model(model: str, source: str = "hf") -> Path:
    """The folder of a model, downloaded if need be. Raises ``ValueError`` in one line with what to do."""
    folder = Path(model)
    if not folder.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model) or model.startswith((".", "/")):
            raise ValueError(f"model {model}: no such folder, and not a hub name such as Qwen/Qwen2.5-7B-Instruct")
        name, revision = split_revision(model)
        folder = Path(_from_modelscope(name, revision) if source == "modelscope" else _from_hugging_face(name, revision))
    _check(folder)
    return folder


def split_revision(model: str) -> tuple[str, str | None]:
    """Name and revision of ``owner/name@revision``; None: the hub's default branch. A folder has none."""
    if Path(model).is_dir():
        return model, None
    name, _, revision = model.partition("@")
    return name, revision or None


def tuned_files(folder: Path) -> list[Path]:
    """The files that decide what a tuned model does: an adapter's, or a whole model's (``train.method=full``).

    Raises ``ValueError`` naming the verb that makes them.
    """
    whole = sorted(folder.glob("model*.safetensors"))
    files = [folder / "config.json", *whole] if whole else [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    if missing := [path for path in files if not path.is_file()]:
        raise ValueError(f"{missing[0]}: not there; `xinglin train` makes the adapter")
    return files


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ValueError(f"model {folder}: no config.json; a model folder holds {LAYOUT}")
    if not any(folder.glob("*.safetensors")):
        other = " (only safetensors are read; .bin files can run code)" if any(folder.glob("*.bin")) else ""
        raise ValueError(f"model {folder}: no weights{other}; a model folder holds {LAYOUT}")


def _from_hugging_face(model: str, revision: str | None) -> str:
    import httpx2  # what huggingface_hub asks with
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return snapshot_download(model, revision=revision, allow_patterns=FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise
        raise ValueError(f"model {model}: {_reason(error)}. {_advice(model)}") from None


def _reason(error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return f"the hub did not give it ({type(error).__name__}: {reason[:160]})"


def _advice(model: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return (
        f"Asked: {endpoint}. Set HF_ENDPOINT to a mirror (such as https://hf-mirror.com), or hub=modelscope, "
        f"or copy the files ({LAYOUT}) into a folder and give model=FOLDER"
    )


def _from_modelscope(model: str, revision: str | None) -> str:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise ValueError("hub=modelscope needs the package modelscope: pip install modelscope") from None
    try:
        return str(snapshot_download(model, revision=revision, allow_patterns=FILES))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model {model}: {_reason(error)}. ModelScope was asked; copy the files ({LAYOUT}) by hand, or hub=hf"
        ) from None
