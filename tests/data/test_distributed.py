"""A cluster of two nodes writes the same bytes as one process. Ray is an extra: without it this skips, except in CI."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_clean import corpus, questions, recipe, run

RAY = find_spec("ray") is not None

CLUSTER = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import ray
from ray.cluster_utils import Cluster
from xinglin import cli, config
from xinglin import records
from xinglin.data import distributed, parts
records.code_version = lambda: "the same"  # an editor at work during the test is not its subject
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=1)
ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
parts.BATCH = 400
if sys.argv[2:] == ["kill"]:
    distributed.find = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2:] == ["go on"]:
    parts.prepare = None  # nothing is left to prepare
cli.execute("clean", config.load(sys.argv[1]))
print(len(ray.nodes()))
ray.shutdown()
nodes.shutdown()
"""


def on_two_nodes(recipe: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CLUSTER, str(recipe), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(not RAY and "CI" not in os.environ, reason="needs the extra ray")
def test_two_nodes_write_the_same_bytes_as_one_process_also_after_a_kill(tmp_path: Path) -> None:
    rows = questions(1200)
    rows += [(question, f"{answer[:30]}啊{answer[30:]}") for question, answer in rows[:150]] + rows[:100] + [("胃疼", "见上")] * 5
    local = recipe(tmp_path / "local", corpus(tmp_path, rows))
    run(local)
    path = tmp_path / "recipe.yaml"
    settings = {"name": "t", "model": "demo", "runs": str(tmp_path / "ray"), "data": list(local.data), "clean": {"engine": "ray"}}
    path.write_text(json.dumps(settings), encoding="utf-8")
    assert on_two_nodes(path, "kill").returncode == -9
    assert not (tmp_path / "ray/t/1-clean/records.jsonl").exists()
    done = on_two_nodes(path, "go on")
    assert done.stdout.split()[-1:] == ["2"], done.stderr[-2000:]
    for name in ("records.jsonl", "rejected.jsonl", "report.json", "report.html"):
        assert (tmp_path / "ray/t/1-clean" / name).read_bytes() == (local.folder / "1-clean" / name).read_bytes()
