"""An OpenAI-compatible endpoint on loopback with a fixed latency and chosen faults, for tests and benches.

In: chat requests. Out: the source answer in three sections, or a fault; ``GET /stats`` counts what it saw and what it charged::

    {"requests": 512, "charged": {"prompt": 91022, "completion": 70114}, "lost": {…}, "faults": {"429": 9}, "rows": {…}}

Run as ``python mock_endpoint.py --latency 2 --faults 0.6``; it prints its address. ``Mock`` runs it in a thread of a test.
"""

import argparse
import asyncio
import json
import math
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from xinglin.schema import Answer

FAULTS = ("429", "500", "html", "empty", "cut", "reset", "slow")
DATA = re.compile(r"<question>\n(.*?)\n</question>\n<answer>\n(.*?)\n</answer>", re.DOTALL)
Script = Callable[[str, str, int], str]  # question, source, how often this question was asked -> a fault or the text of an answer


def faithful(source: str) -> str:
    """The source, untouched, in the three sections."""
    return Answer.from_points([("见下。", "见下。"), ("见下。", "见下。"), ("见下。", source.rstrip("。！") + "。")]).render()


class Endpoint:
    """The state of one endpoint. ``script`` decides every answer; without it, ``share`` of the answers are faults."""

    def __init__(
        self, latency: float = 0.0, share: float = 0.0, script: Script | None = None, key: str = "", drip: float = 30.0
    ) -> None:
        self.latency, self.share, self.script, self.key, self.drip = latency, share, script, key, drip
        self.random = random.Random(7)
        self.requests = self.flying = self.most_flying = 0
        self.first = self.last = 0.0  # monotonic seconds of the first request and the last answer
        self.charged: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.transports: set[asyncio.Transport] = set()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []

    def stats(self) -> dict[str, Any]:
        names = ("requests", "most_flying", "first", "last", "charged", "lost", "faults", "rows")
        return {name: getattr(self, name) for name in names} | {"cpu": time.process_time()}

    def answer(self, head: str, body: bytes) -> tuple[str, bytes]:
        """The fault and the bytes of a reply: "" or a name of ``FAULTS`` or a status."""
        if self.key and f"Bearer {self.key}" not in head:
            return "401", _http(401, {"error": {"message": f"wrong key {self.key}", "code": "invalid_api_key"}})
        data = json.loads(body)
        if data["model"] == "missing":
            return "404", _http(404, {"error": {"message": "The model does not exist", "code": "model_not_found"}})
        if not data["messages"]:
            return "400", _http(400, {"error": {"message": "empty messages"}})
        prompt = data["messages"][-1]["content"]
        found = DATA.search(prompt)
        question, source = (found[1], found[2]) if found else (prompt, prompt)
        self.rows[question[:40]] += 1
        if self.script:
            said = self.script(question, source, self.rows[question[:40]])
        else:
            said = self.random.choice(FAULTS) if self.random.random() < self.share else faithful(source)
        return self._reply(said, data, prompt, source)

    def _reply(self, said: str, data: dict[str, Any], prompt: str, source: str) -> tuple[str, bytes]:
        if said.isdigit():
            self.faults[said] += 1
            headers = "retry-after: 0.2\r\n" if said == "429" else ""
            return said, _http(int(said), {"error": {"message": f"fault {said}"}}, headers)
        fault = said if said in FAULTS or said == "content_filter" else ""
        self.faults[fault or "none"] += 1
        if fault == "html":
            return fault, _http(200, None)
        text = {"empty": "", "content_filter": "", "cut": faithful(source)[:60]}.get(fault, faithful(source) if fault else said)
        finish = {"cut": "length", "content_filter": "content_filter"}.get(fault, "stop")
        usage = self._usage(data, text, lost=fault in {"reset", "slow"})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        return fault, _http(
            200,
            {"id": "1", "object": "chat.completion", "created": 1, "model": data["model"], "choices": [choice], "usage": usage},
        )

    def _usage(self, data: dict[str, Any], text: str, lost: bool) -> dict[str, Any]:
        prompt = math.ceil(sum(len(message["content"]) for message in data["messages"]) * 0.64)
        completion, cached = math.ceil(len(text) * 0.64), math.floor(len(data["messages"][0]["content"]) * 0.64) // 64 * 64
        (self.lost if lost else self.charged).update(prompt=prompt, cached=cached, completion=completion)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _http(status: int, data: object, headers: str = "") -> bytes:
    body = b"<html><body>busy</body></html>" if data is None else json.dumps(data, ensure_ascii=False).encode()
    kind = "text/html" if data is None else "application/json"
    return f"HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; answers come ``latency`` seconds after the request is in."""

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint, keep: bool) -> None:
        self.endpoint, self.keep, self.buffer = endpoint, keep, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.endpoint.transports.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.endpoint.transports.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            stop = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < stop:
                return
            body, self.buffer = self.buffer[end + 4 : stop], self.buffer[stop:]
            self.take(head, body)

    def take(self, head: str, body: bytes) -> None:
        if head.startswith("GET /stats"):
            self.transport.write(_http(200, self.endpoint.stats()))
            return
        endpoint = self.endpoint
        endpoint.first = endpoint.first or time.monotonic()
        endpoint.requests += 1
        endpoint.flying += 1
        endpoint.most_flying = max(endpoint.most_flying, endpoint.flying)
        if self.keep:
            endpoint.bodies.append(json.loads(body))
            endpoint.headers.append(head)
        asyncio.get_running_loop().call_later(endpoint.latency, self.give, head, body)

    def give(self, head: str, body: bytes) -> None:
        self.endpoint.flying -= 1
        self.endpoint.last = time.monotonic()
        if self.transport.is_closing():
            return
        fault, reply = self.endpoint.answer(head, body)
        if fault == "reset":
            self.transport.abort()
        elif fault == "slow":
            self.transport.write(reply[:40])
            asyncio.get_running_loop().call_later(self.endpoint.drip, self.transport.write, reply[40:])
        else:
            self.transport.write(reply)


class Mock:
    """An endpoint in a thread: ``with Mock(script=…) as mock: … mock.url``."""

    def __init__(self, tls: ssl.SSLContext | None = None, **settings: Any) -> None:
        self.endpoint, self.tls = Endpoint(**settings), tls
        self.loop = asyncio.new_event_loop()

    def __enter__(self) -> "Mock":
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,))
        self.thread.start()
        ready.wait()
        return self

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            self.loop.create_server(lambda: Connection(self.endpoint, True), "127.0.0.1", 0, ssl=self.tls)
        )
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/v1"
        ready.set()
        self.loop.run_forever()
        server.close()
        for transport in list(self.endpoint.transports):
            transport.abort()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


async def _serve(options: argparse.Namespace) -> None:
    endpoint = Endpoint(options.latency, options.faults, drip=options.drip)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint, False), "127.0.0.1", options.port, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--drip", type=float, default=30.0)
    asyncio.run(_serve(parser.parse_args()))
