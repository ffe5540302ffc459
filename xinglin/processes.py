"""Processes: which one of a run under ``torchrun`` or ``accelerate launch`` this is, from the variables both set.

In: the environment. Out: how many processes there are and whether this is the first, which alone writes files and speaks::

    RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500
"""

import os


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process writes the files of the run; a single process does."""
    return os.environ.get("RANK", "0") == "0"
