"""Doctor: what this machine has, which recipe fits its memory, what is missing and the command that mends it.

In: nothing, or a recipe. Out: lines on stdout, one fact each; problems are marked and counted.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from xinglin import hub, planner
from xinglin.config import Recipe

GIB = 2**30
VARIABLES = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "MODELSCOPE_CACHE", "CUDA_VISIBLE_DEVICES", "NO_COLOR")
SECRETS = ("HF_TOKEN", "XINGLIN_API_KEY", "XINGLIN_LLM_KEY")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "polars", "fastapi")


def facts() -> list[str]:
    """What this machine has, a line each."""
    total, free = memory()
    lines = [
        f"python        {platform.python_version()} ({sys.executable})",
        f"processor     {os.cpu_count()} cores, {platform.machine()}",
        f"memory        {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free",
        f"disk here     {shutil.disk_usage('.').free / GIB:.1f} GiB free",
        *gpus(),
    ]
    lines += [f"{name:13} {importlib.metadata.version(name)}" for name in PACKAGES]
    lines += [f"{name} = {os.environ[name]}" for name in VARIABLES if name in os.environ]
    return lines + [f"{name} is set" for name in SECRETS if name in os.environ]


def memory() -> tuple[int, int]:
    """(all, available) main memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), planner.available_memory()


def gpus() -> list[str]:
    if not torch.cuda.is_available():
        return ["gpu           none: models run on the processor in fp32; nf4 and int8 work too, slower"]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "fp16 only"
        found.append(f"gpu {index}         {properties.name}, {properties.total_memory / GIB:.0f} GiB, {bf16}")
    return found


def problems(recipe: Recipe) -> list[str]:
    """What keeps a recipe from running here, each with the command or key that mends it."""
    found = [f"data {path}: no such file; give data=[FILE]" for path in recipe.files if not path.exists()]
    try:
        folder = hub.find_model(recipe.base, recipe.hub)
    except ValueError as error:
        return [*found, str(error)]
    if planner.knows(folder):
        made = planner.for_recipe(recipe, folder)
        found += [] if made.fits else [made.problem()]
    return found


def plan(recipe: Recipe) -> list[str]:
    """What training takes here, in a line; none where the model is not on this machine or of an unknown architecture."""
    if not (Path(recipe.base) / "config.json").is_file() or not planner.knows(Path(recipe.base)):
        return []
    return [f"training      {planner.for_recipe(recipe, Path(recipe.base)).lines()}"]
