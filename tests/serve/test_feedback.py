from pathlib import Path

import httpx
import pytest
from serve_fakes import running, serving

from xinglin.serve import feedback

GIVEN = {"vote": "down", "reasons": ["不准确"], "model": "demo", "question": "我电话13812345678，胃疼", "answer": "…"}


def test_a_rating_is_kept_masked_over_a_restart_and_exported(tmp_path: Path) -> None:
    with running(serving(tmp_path)) as url:
        number = httpx.post(f"{url}/v1/feedback", json=GIVEN).json()["id"]
    with running(serving(tmp_path)) as url:
        response = httpx.get(f"{url}/v1/feedback")
    assert response.headers["content-type"].startswith("application/jsonl")
    (line,) = response.text.splitlines()
    row = httpx.Response(200, content=line.encode()).json()
    assert (row["id"], row["vote"], row["reasons"], row["fingerprint"]) == (number, "down", ["不准确"], "fake-prompt")
    assert "13812345678" not in line and "胃疼" in row["question"]


def test_a_rating_is_taken_back_once(tmp_path: Path) -> None:
    with running(serving(tmp_path)) as url:
        number = httpx.post(f"{url}/v1/feedback", json=GIVEN).json()["id"]
        assert [httpx.delete(f"{url}/v1/feedback/{number}").status_code for _ in range(2)] == [200, 404]
        assert httpx.get(f"{url}/v1/feedback").text == ""


@pytest.mark.parametrize(("change", "named"), [({"vote": "love"}, "vote"), ({"answer": None}, "answer"), ({"extra": 1}, "extra")])
def test_a_rating_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    with running(serving(tmp_path)) as url:
        response = httpx.post(f"{url}/v1/feedback", json=GIVEN | change)
    assert response.status_code == 400 and response.json()["error"]["message"].startswith(named)


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "sqlite:////nowhere/at/all.sqlite"])
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"serve\.database=") as caught:
        feedback.open_store(url, tmp_path)
    assert "\n" not in str(caught.value)
