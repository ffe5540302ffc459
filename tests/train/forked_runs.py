"""Runs of the train stage, one after the other, in processes forked from this one, which imports everything but once.

    python forked_runs.py '[{"overrides": ["name=t", …], "processes": 2, "divided": true, "remove": ["adapter"]}, …]' RECIPE

Before a run the files ``remove`` below ``4-train/`` are removed. Exits with the first status that is not 0.
"""

import json
import multiprocessing
import os
import shutil
import socket
import sys
from pathlib import Path

import torch

from xinglin import cli, config
from xinglin.train import stage  # noqa: F401 - imported before the fork

FORK = multiprocessing.get_context("fork")


def run(arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(cli.main(arguments))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    for asked in json.loads(sys.argv[1]):
        arguments = ["train", sys.argv[2], *asked["overrides"]]
        folder = config.load(sys.argv[2], asked["overrides"]).folder / "4-train"
        for name in asked.get("remove", []):
            path: Path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        count = asked["processes"]
        shared = {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        shared["ACCELERATE_USE_FSDP"] = str(asked["divided"]).lower()
        started = [
            FORK.Process(
                target=run, args=(arguments, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
            )
            for rank in range(count)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if status := max(process.exitcode or 0 for process in started):
            sys.exit(status)


if __name__ == "__main__":
    main()
