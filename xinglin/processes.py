"""Processes: which one of a run under ``torchrun`` or ``accelerate launch`` this is, from the variables both set.

In: the environment. Out: how many processes there are and whether this is the first, which alone writes files and speaks::

    RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500
"""

import os


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def divided() -> bool:
    """Whether the weights are to lie in parts on the processes (FSDP), as ``accelerate launch --use_fsdp`` asks."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def first() -> bool:
    """Whether this process writes the files of the run; a single process does."""
    return os.environ.get("RANK", "0") == "0"
