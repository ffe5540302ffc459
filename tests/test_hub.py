import functools
import os
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from mock_hub import Hub

from xinglin import hub


@pytest.fixture
def endpoint(tiny):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, tiny))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(model: str, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask in a process of its own: huggingface_hub reads its variables when it is imported."""
    code = f"from xinglin import cli, hub\ntry: print(hub.find_model({model!r}))\nexcept ValueError as e: cli.say(str(e))"
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_model_comes_from_the_endpoint_named_by_the_variable_and_then_from_the_cache(endpoint, tiny, tmp_path):
    first = ask("our/model", tmp_path, HF_ENDPOINT=endpoint)
    folder = Path(first.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes(), first.stderr
    offline = ask("our/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout


def test_an_unreachable_hub_names_the_variable_the_mirror_and_the_manual_layout(tmp_path):
    message = ask("our/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9").stderr
    for part in ("our/model", "http://127.0.0.1:9", "HF_ENDPOINT", "hub=modelscope", "*.safetensors", "model=FOLDER"):
        assert part in message


def test_a_model_the_hub_does_not_have_is_one_line(endpoint, tmp_path):
    done = ask("our/other", tmp_path, HF_ENDPOINT=endpoint)
    assert "our/other: the hub did not give it" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no config.json; a model folder holds"),
        (["config.json"], "no weights"),
        (["config.json", "pytorch_model.bin"], "only safetensors are read; .bin files can run code"),
    ],
)
def test_a_folder_without_weights_says_what_a_folder_holds(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="a model folder holds") as error:
        hub.find_model(str(tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize("model", ["./none", "/none/at/all", "none", "a/b/c"])
def test_a_missing_folder_is_not_taken_for_a_hub_name(model):
    with pytest.raises(ValueError, match="no such folder, and not a hub name"):
        hub.find_model(model)


def test_a_revision_stands_behind_the_name(endpoint, tmp_path, tiny):
    done = ask("our/model@v1.0", tmp_path, HF_ENDPOINT=endpoint)
    assert (Path(done.stdout.strip()) / "config.json").is_file(), done.stderr
    assert (tmp_path / "hub" / "models--our--model" / "refs" / "v1.0").is_file()
    assert hub.split_revision("our/model") == ("our/model", None)
    (folder := tmp_path / "a@b").mkdir()
    assert hub.split_revision(str(folder)) == (str(folder), None)
