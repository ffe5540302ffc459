"""Hub: the files behind the names of a recipe's ``data``.

In: ``demo``, paths, and names of hub data sets. Out: one local file for each; a hub data set is fetched once, through
``datasets`` (or ``modelscope``), into a Parquet file below the run::

    "hf://owner/name"               ->  runs/<name>/0-hub/hf-owner-name-train.parquet
    "hf://owner/name@v1.0:test"     ->  runs/<name>/0-hub/hf-owner-name@v1.0-test.parquet
    "modelscope://owner/name"       ->  runs/<name>/0-hub/modelscope-owner-name-train.parquet
"""

import importlib
import os
import re
from pathlib import Path
from typing import Any

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        _load(hub, name, revision, split).to_parquet(str(temporary))
    except (OSError, ValueError, RuntimeError) as error:
        mirror = os.environ.get("HF_ENDPOINT", "https://huggingface.co") if hub == "hf" else "modelscope.cn"
        raise ValueError(
            f"data: {hub}://{name}:{split} cannot be fetched from {mirror} ({' '.join(str(error).split())[:200]})"
        ) from None
    temporary.replace(path)


def _load(hub: str, name: str, revision: str | None, split: str) -> Any:
    package = {"hf": "datasets", "modelscope": "modelscope.msdatasets"}[hub]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError:
        extra = "hub" if hub == "hf" else "modelscope"
        raise ValueError(
            f"data: {hub}://{name} needs the package {package.split('.')[0]}: pip install 'xinglin[{extra}]'"
        ) from None
    if hub == "hf":
        return module.load_dataset(name, revision=revision, split=split)
    loaded = module.MsDataset.load(name, split=split, version=revision or "master")
    return loaded.to_hf_dataset()
