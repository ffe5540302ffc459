"""Hub data sets come through the real ``datasets`` and ``modelscope`` from a hub on loopback, once. Both are extras."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from xinglin.records import write_jsonl

pytestmark = pytest.mark.skipif(
    not (find_spec("datasets") and find_spec("modelscope")) and "CI" not in os.environ,
    reason="needs the extras hub and modelscope",
)

COMMIT = "a" * 40
ANSWER = "多半与饮食不规律有关，先清淡饮食观察三天，若夜间痛醒、黑便或消瘦，请尽快到消化内科做胃镜检查。"


class Hub(BaseHTTPRequestHandler):
    """What both libraries ask of a hub, answered from a folder: the data set our/data."""

    def __init__(self, folder: Path, asked: list[str], *arguments) -> None:
        self.folder, self.asked = folder, asked
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.asked.append(url.path)
        _, found, inside = url.path.partition("/resolve/")
        if url.path.startswith("/api/v1/datasets/our/data/repo"):
            self.modelscope(url.path, parse_qs(url.query))
        elif url.path.startswith("/datasets/our/data") and found:
            self.file(inside.partition("/")[2])
        elif url.path.startswith("/api/datasets/our/data"):
            self.json(self.tree() if "/tree/" in url.path else {"id": "our/data", "sha": COMMIT, "siblings": [], "tags": []})
        else:
            self.send_error(404)

    def modelscope(self, path: str, query: dict[str, list[str]]) -> None:
        if path.endswith("/tree"):
            files = [{"Path": entry["path"], "Type": "blob", "Size": entry["size"]} for entry in self.tree()]
            self.json({"Code": 200, "Success": True, "Data": {"Files": files}})
        else:
            self.file(query["FilePath"][0])

    def tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "b" * 40}
            for path in sorted(self.folder.iterdir())
        ]

    def file(self, name: str) -> None:
        if (self.folder / name).is_file():
            self.reply((self.folder / name).read_bytes(), name)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def json(self, value: object) -> None:
        self.reply(json.dumps(value).encode(), "json")

    def reply(self, body: bytes, tag: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": len(body), "ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, str(value))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def endpoint(tmp_path: Path, asked: list[str]) -> Iterator[str]:
    folder = tmp_path / "hub"
    for name, question in (("train", "胃疼三天怎么办？"), ("test", "头晕两天怎么办？")):
        write_jsonl(folder / f"{name}.jsonl", [{"question": question, "answer": ANSWER}])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def clean(folder: Path, name: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """`xinglin clean` in a process of its own: both libraries read their variables when they are imported."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "t", "model": "demo", "runs": str(folder), "data": [name]}), encoding="utf-8")
    cache = {"HF_HOME": str(folder / "hf"), "MODELSCOPE_CACHE": str(folder / "ms"), "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **cache, "HF_ENDPOINT": endpoint, "MODELSCOPE_ENDPOINT": endpoint}
    command = [sys.executable, "-m", "xinglin.cli", "clean", str(recipe)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize("hub", ["hf", "modelscope"])
def test_a_data_set_comes_once_and_the_split_that_was_named(tmp_path, endpoint, asked, hub):
    done = clean(tmp_path, f"{hub}://our/data:test", endpoint)
    rows = [json.loads(line) for line in (tmp_path / "t/1-clean/records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == ["头晕两天怎么办？"], done.stderr
    assert rows[0]["source"] == {"file": f"{hub}://our/data:test", "row": 1}
    asked.clear()
    assert clean(tmp_path, f"{hub}://our/data:test", endpoint).returncode == 0
    assert asked == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("hf://our/none", "our/none"), ("hf://our/data:dev", "dev"), ("modelscope://our/none", "our/none")],
)
def test_what_the_hub_does_not_have_is_one_line_that_says_what_to_do(tmp_path, endpoint, name, reason):
    done = clean(tmp_path, name, endpoint)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert last.startswith(f"xinglin: data: {name}")
    assert reason in last
    assert "data=[FILE]" in last


@pytest.mark.parametrize(("hub", "variable"), [("hf", "HF_ENDPOINT"), ("modelscope", "MODELSCOPE_ENDPOINT")])
def test_an_unreachable_hub_names_its_variable(tmp_path, hub, variable):
    done = clean(tmp_path, f"{hub}://our/data", "http://127.0.0.1:9")
    assert (done.returncode, variable in done.stderr.splitlines()[-1]) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
