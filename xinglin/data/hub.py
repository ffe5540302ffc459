"""Hub: the files behind the names of a recipe's ``data``.

In: ``demo``, paths, and names of hub data sets. Out: one local file for each; a hub data set is fetched once, through
``datasets`` (its files through ``modelscope``), into a Parquet file below the run::

    "hf://owner/name"               ->  runs/<name>/0-hub/hf-owner-name-train.parquet
    "hf://owner/name@v1.0:test"     ->  runs/<name>/0-hub/hf-owner-name@v1.0-test.parquet
    "modelscope://owner/name"       ->  runs/<name>/0-hub/modelscope-owner-name-train.parquet
"""

import errno
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xinglin import records
from xinglin.config import DEMO, Recipe

_NAME = re.compile(r"(?P<hub>hf|modelscope)://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>[\w.-]+))?")


def sources(recipe: Recipe) -> dict[str, Path]:
    """Name as in the recipe (it becomes ``source.file``) and local file of every entry of ``data``."""
    return {name: _local(name, recipe.folder / "0-hub") for name in recipe.data}


def _local(name: str, folder: Path) -> Path:
    if name == "demo":
        return DEMO / "sample.jsonl"
    if "://" not in name:
        return Path(name)
    found = _NAME.fullmatch(name)
    if not found:
        raise ValueError(
            f"data: {name!r} is no hub data set; write hf://owner/name or modelscope://owner/name, then @revision and :split"
        )
    hub, owner_name, revision, split = found["hub"], found["name"], found["revision"], found["split"] or "train"
    version = f"@{revision.replace('/', '-')}" if revision else ""
    path = folder / f"{hub}-{owner_name.replace('/', '-')}{version}-{split}.parquet"
    if not path.exists():
        _fetch(hub, owner_name, revision, split, path)
    return path


def _fetch(hub: str, name: str, revision: str | None, split: str, path: Path) -> None:
    """Write one split of a hub data set to ``path``, whole or not at all."""
    datasets = _package("datasets", hub, name)
    load, failures = (_modelscope if hub == "modelscope" else _hugging_face)(name, revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        with records.room(path):
            datasets.load_dataset(**load(), split=split).to_parquet(str(temporary))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, *failures) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ValueError(
            f"data: {hub}://{name}:{split} cannot be had ({' '.join(str(error).split())[:200]}). {_advice(hub)}"
        ) from None
    temporary.replace(path)


Source = tuple[Callable[[], dict[str, Any]], tuple[type[Exception], ...]]  # arguments of load_dataset, and what it may raise


def _hugging_face(name: str, revision: str | None) -> Source:
    import httpx2  # what huggingface_hub asks with; a refused connection comes through as its error

    return lambda: {"path": name, "revision": revision}, (httpx2.HTTPError,)


def _modelscope(name: str, revision: str | None) -> Source:
    """The files are fetched by ``modelscope`` and read by ``datasets``: its own reader needs an older ``datasets``."""
    hub = _package("modelscope", "modelscope", name)
    errors = importlib.import_module("modelscope_hub.errors")
    return lambda: {"path": hub.dataset_snapshot_download(name, revision=revision or "master")}, (errors.HubError,)


def _package(package: str, hub: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        extra = "hub" if hub == "hf" else "modelscope"
        raise ValueError(f"data: {hub}://{name} needs the package {package}: pip install 'xinglin[{extra}]'") from None


def _advice(hub: str) -> str:
    if hub == "modelscope":
        return "MODELSCOPE_ENDPOINT names another server; or fetch the files by hand and give data=[FILE]"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return f"Asked: {endpoint}; HF_ENDPOINT names a mirror; or fetch the files by hand and give data=[FILE]"
