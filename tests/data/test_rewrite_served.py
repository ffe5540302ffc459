"""An air-gapped rewrite: the endpoint is `xinglin serve` on this machine."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from xinglin import config, records
from xinglin.data import journal as journals
from xinglin.data import rewrite, rewrite_job

SCRIPT = "import sys; from xinglin import cli; sys.exit(cli.main(sys.argv[1:]))"
ANSWER = "多半是咽炎，别吃辣的，三天不见好去耳鼻喉科。"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def test_rows_end_in_named_states_and_their_tokens_are_booked(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite_job, "ROOM", 48)
    monkeypatch.setattr(rewrite_job, "TITLES", 0)  # random weights never end by themselves
    port = free_port()
    served = tmp_path / "served.yaml"
    served.write_text(f"name: served\nmodel: {tiny}\nruns: {tmp_path}\nserve: {{port: {port}}}\n", encoding="utf-8")
    rows = [
        records.Record(
            f"id{number}", f"g{number}", [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWER}], {}
        )
        for number, question in enumerate(("嗓子疼三天。", "胸口疼出冷汗半小时了怎么办？"))
    ]
    records.write_jsonl(tmp_path / "t" / "1-clean" / "records.jsonl", rows)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, "serve", str(served)], stderr=subprocess.DEVNULL)
    try:
        wait(url, process)
        settings = {"base_url": f"{url}/v1", "model": tiny.name, "on_finding": "flag"}
        recipe = config.build({"name": "t", "model": "demo", "runs": str(tmp_path), "rewrite": settings})
        rewrite.run(recipe, tmp_path / "t" / "2-rewrite")
    finally:
        process.terminate()
        process.wait(30)
    found = journals.read(tmp_path / "t" / "2-rewrite" / "journal.sqlite")
    assert found.states["accepted"] + found.states["rejected"] == found.rows == 2
    assert found.prompt_tokens > 200
    assert found.completion_tokens >= 48
