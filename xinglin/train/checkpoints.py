"""Checkpoints: which of them may be gone on from.

In: ``4-train/checkpoints/`` of an interrupted run. Out: the last one that is whole and of the same rows and settings. What they
are of stands in ``identity.json``::

    {"rows": {"train.jsonl": "9f0c…"}, "settings": {"model": "demo", "seed": 42, "train": {…}}}
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xinglin import processes, records
from xinglin.train.log import say


def open_checkpoints(folder: Path, expected: dict[str, Any]) -> Path:
    """The folder of checkpoints; those of other rows or settings are removed, and so are partly written ones."""
    identity = folder / "identity.json"
    if folder.exists() and (not identity.exists() or json.loads(identity.read_text(encoding="utf-8")) != expected):
        say(f"train: {folder} is of other rows or settings; starting anew")
        shutil.rmtree(folder)
    records.write_json(identity, expected)
    for checkpoint in folder.glob("checkpoint-*"):
        if not complete(checkpoint):
            shutil.rmtree(checkpoint)
    return folder


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer writes its state last, and an archive ends in its directory."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = any((checkpoint / name).is_file() for name in ("adapter_model.safetensors", "model.safetensors"))
    return weights and all(zipfile.is_zipfile(checkpoint / name) for name in (*_moments(checkpoint), "scheduler.pt"))


def _moments(checkpoint: Path) -> tuple[str, ...]:
    """The archives of the optimizer, and of the weights, as they are named where the weights are divided (FSDP) or not."""
    return ("pytorch_model_fsdp.bin", "optimizer.bin") if (checkpoint / "optimizer.bin").exists() else ("optimizer.pt",)


def make_room(folder: Path, needed: int) -> None:
    """Raise ``ValueError`` where the disk does not hold another checkpoint of ``needed`` bytes, before one is begun."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"a checkpoint takes {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"
        raise ValueError(f"train: {folder}: {sizes}; free some and run the same command, which goes on from the last checkpoint")


@contextlib.contextmanager
def whole_or_gone(folder: Path) -> Iterator[None]:
    """Remove what an error leaves half-written below ``4-train/``, and raise it as one ``ValueError``; others pass.

    torch and safetensors say in words of their own that a disk is full, and some say no more than that a write failed.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        halves = [path for path in (folder / "checkpoints").glob("checkpoint-*") if not complete(path)]
        halves += [path for path in [folder / ".adapter"] if path.exists()]
        if not halves:
            raise
        for path in halves:
            shutil.rmtree(path)
        found = f"{str(error).splitlines()[0]}; {shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"
        advice = "make room and run the same command, which goes on from the last checkpoint"
        raise ValueError(f"train: {halves[0]} could not be written ({found}); {advice}") from None


def last_complete(folder: Path) -> str | None:
    """Raises ``ValueError`` where the run was started otherwise: optimizer states do not fit both ways."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if found and (divided := (found[-1] / "optimizer.bin").exists()) != processes.divided():
        way = "with --use_fsdp" if divided else "without --use_fsdp"
        raise ValueError(f"train: {found[-1]} is of a run {way}; start it {way} again, or remove {folder} to begin anew")
    return str(found[-1]) if found else None
