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
import sys, warnings
warnings.simplefilter("ignore")
import ray
from ray.cluster_utils import Cluster
from xinglin import cli, config
from xinglin.data import parts
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=1)
ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
parts.BATCH = 400
cli.execute("clean", config.load(sys.argv[1]))
print(len(ray.nodes()))
ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.skipif(not RAY and "CI" not in os.environ, reason="needs the extra ray")
def test_two_nodes_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    rows = questions(1200)
    rows += [(question, f"{answer[:30]}啊{answer[30:]}") for question, answer in rows[:150]] + rows[:100] + [("胃疼", "见上")] * 5
    local = recipe(tmp_path / "local", corpus(tmp_path, rows))
    run(local)
    path = tmp_path / "recipe.yaml"
    settings = {"name": "t", "model": "demo", "runs": str(tmp_path / "ray"), "data": list(local.data), "clean": {"engine": "ray"}}
    path.write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", CLUSTER, str(path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split()[-1:] == ["2"], done.stderr[-2000:]
    for name in ("records.jsonl", "rejected.jsonl", "report.json", "report.html"):
        assert (tmp_path / "ray/t/1-clean" / name).read_bytes() == (local.folder / "1-clean" / name).read_bytes()
