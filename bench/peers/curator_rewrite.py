"""Rows of a JSON Lines file of prompts through curator's online processor; prints seconds and CPU seconds as JSON.

Run by bench/rewrite.py in .peers/curator with: URL, FILE, IN_FLIGHT.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"OPENAI_API_KEY": "none", "TELEMETRY_ENABLED": "0", "CURATOR_VIEWER": "0", "CURATOR_DISABLE_CACHE": "1"}

# The vocabulary that curator would download lies in litellm, which it brings along.

litellm = importlib.util.find_spec("litellm")
assert litellm and litellm.origin
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator  # noqa: E402


class Rewriter(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = row["messages"]
        return messages

    def parse(self, row: dict[str, Any], response: str) -> dict[str, str]:
        return {"answer": response}


def main() -> None:
    url, path, flying = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    limits = {"max_concurrent_requests": flying, "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10}
    model = Rewriter(model_name="gpt-4o-mini", backend="openai", backend_params={"base_url": url, "max_retries": 3, **limits})
    started, used = time.monotonic(), time.process_time()
    answers = model(rows)
    found = getattr(answers, "dataset", answers)
    print(json.dumps({"rows": len(found), "seconds": time.monotonic() - started, "cpu": time.process_time() - used}))


if __name__ == "__main__":
    main()
