import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from xinglin import cli, config
from xinglin.serve import launch

SERVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from serve_fakes import FakeEngine
from xinglin import config
from xinglin.serve import launch
from xinglin.serve.backend import Local
launch.backend = lambda recipe: Local(FakeEngine(pause=0.01), "demo")
launch.serve(config.build({{"model": "x", "name": "demo", "runs": {runs!r}, "serve": {{"port": {port}}}}}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def recipe_file(folder: Path, **serve: object) -> Path:
    path = folder / "r.yaml"
    lines = "".join(f"  {key}: {value}\n" for key, value in serve.items())
    path.write_text(f"name: demo\nmodel: {folder}\nruns: {folder / 'runs'}\nserve:\n{lines}", encoding="utf-8")
    return path


def test_a_port_in_use_is_one_line_with_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(recipe_file(tmp_path, port=port))]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"serve.port={port} is in use; stop what uses it, or add serve.port={port + 1}")
    )


def test_the_address_that_is_printed_can_be_opened() -> None:
    shown = {host: launch.shown(host) for host in ("127.0.0.1", "0.0.0.0", "::", "fd00::1", "clinic.example")}
    assert list(shown.values()) == ["localhost", "localhost", "localhost", "[fd00::1]", "clinic.example"]


def test_another_host_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XINGLIN_API_KEY", raising=False)
    assert cli.main(["serve", str(recipe_file(tmp_path, host="0.0.0.0", port=0))]) == 2
    assert "XINGLIN_API_KEY" in capsys.readouterr().err


def test_a_model_that_does_not_load_ends_the_server_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert cli.main(["serve", str(recipe_file(tmp_path, port=0))]) == 2
    error = capsys.readouterr().err
    assert "no adapter" in error and str(tmp_path) in error.splitlines()[-1] and "Traceback" not in error


def test_the_adapter_is_found_once_training_has_written_it(tmp_path: Path) -> None:
    recipe = config.build({"model": "x", "name": "mine", "runs": str(tmp_path)})
    assert launch.adapter_of(recipe) is None
    folder = tmp_path / "mine" / "4-train" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert launch.adapter_of(recipe) == folder


def test_sigterm_lets_answers_finish_and_takes_no_new_ones(tmp_path: Path) -> None:
    port = free_port()
    code = SERVER.format(tests=str(Path(__file__).parent), runs=str(tmp_path), port=port)
    environment = {key: value for key, value in os.environ.items() if key != "XINGLIN_API_KEY"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_for(f"http://localhost:{port}/health")
        body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "胃疼"}]}
        with httpx.stream("POST", f"http://localhost:{port}/v1/chat/completions", json=body) as response:
            parts = response.iter_text()
            next(parts)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"http://localhost:{port}/health")
            assert "".join(parts).endswith("data: [DONE]\n\n")
        assert process.wait(10) == 0
        assert process.stderr.read().splitlines() == [f"http://localhost:{port}  (Ctrl-C stops it)"]
    finally:
        process.kill()
        process.communicate()


def wait_for(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not come up")
