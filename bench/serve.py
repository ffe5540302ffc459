"""Does the server stay up, apart and quick under load, abuse and clients that leave?

Parts, each against a server in a process of its own whose memory is read from /proc:
streams     64 clients at once over a backend that repeats the nonce of each question: errors, mixed-up answers, first byte
malformed   1,000 broken requests: status 5xx, tracebacks, memory
leaving     500 clients that leave the built-in model in mid-answer: time until it is free, places and file descriptors lost
page        bytes and requests of the page, first paint in Chromium (skipped without it)
together, ratio, structure, constraint: the engine's, see bench/generation.py

Prints one line per figure and writes bench/results/serve.json; parts that were not run keep the figures they have.

    python bench/serve.py [--seconds 60] [--parts streams,together,malformed,leaving,page,ratio,structure,constraint]
"""

import argparse
import asyncio
import datetime
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import common
import generation
import httpx

STREAMS = 64
MALFORMED = 1000
LEAVING = 500
LETTERS = "ghjkmnpqrstvwxyz"  # of nonces: a hexadecimal 41c is a fever to the triage
ENGINE = -1.0  # in place of a pause: the server holds the built-in model


# ---------------------------------------------------------------- the server under test


class Repeater:
    """Answers with the question's nonce, 40 times, ``pause`` seconds apart: what comes back tells whose answer it is."""

    slots = 256
    fingerprint = "repeater"

    def __init__(self, pause: float) -> None:
        self.pause = pause

    async def models(self) -> list[Any]:
        from xinglin.serve.backend import Model

        return [Model("demo", True)]

    async def begin(self, ask: Any) -> Any:
        return self._pieces(ask.questions[-1].split()[-1])

    async def _pieces(self, nonce: str) -> Any:
        from xinglin.generation import Reply

        for _ in range(40):
            await asyncio.sleep(self.pause)
            yield f"{nonce} "
        yield Reply("", "stop", 10, 40)

    async def close(self) -> None:
        pass


def serve(port: int, folder: str, pause: float) -> None:
    """The server process: the real application over ``Repeater``, or over the built-in model."""
    import uvicorn

    from xinglin.serve.answering import Server
    from xinglin.serve.api import create_app
    from xinglin.serve.backend import Local

    backend = Local(generation.built_in(), "tuned") if pause == ENGINE else Repeater(pause)
    server = Server("demo", Path(folder), backend, waiting=1000)
    uvicorn.run(create_app(server), port=port, log_level="warning", timeout_keep_alive=75)


@asynccontextmanager
async def started(pause: float, folder: str) -> AsyncIterator["Process"]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path(folder) / "server.log"
    command = [sys.executable, __file__, "--serve", str(port), folder, str(pause)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors)
    found = Process(process.pid, f"http://127.0.0.1:{port}", log)
    try:
        await found.ready()
        yield found
    finally:
        process.terminate()
        process.wait()


class Process:
    def __init__(self, pid: int, url: str, log: Path) -> None:
        self.pid, self.url, self.log = pid, url, log

    async def ready(self) -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                try:
                    await client.get(f"{self.url}/health")
                    return
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
        raise SystemExit(f"the server did not start: {self.log.read_text()}")

    def memory(self) -> float:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def complaints(self) -> int:
        """Lines of tracebacks in the log."""
        return self.log.read_text().count("Traceback")


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **fields}


async def gauge(client: httpx.AsyncClient, url: str, name: str) -> int:
    text = (await client.get(f"{url}/metrics")).text
    return int(text.partition(f"\n{name} ")[2].split()[0])


# ---------------------------------------------------------------- parts


async def streams(seconds: float, folder: str) -> dict[str, Any]:
    async with started(0.02, folder) as server, unlimited() as client:
        before, cpu = server.memory(), server.cpu_seconds()
        end = time.monotonic() + seconds
        answers = await asyncio.gather(*(_talk(client, server.url, end) for _ in range(STREAMS)))
        flat = [answer for talk in answers for answer in talk]
        first = sorted(answer[0] for answer in flat)
        return {
            "streams": STREAMS,
            "seconds": seconds,
            "answers": len(flat),
            "errors": dict(Counter(answer[1] for answer in flat if answer[1] not in ("ok", "mixed"))),
            "cross_talk": sum(answer[1] == "mixed" for answer in flat),
            "server_cpu_ms_per_answer": round(1000 * (server.cpu_seconds() - cpu) / len(flat), 1),
            "first_byte_p50_ms": round(1000 * statistics.median(first), 1),
            "first_byte_p99_ms": round(1000 * first[int(len(first) * 0.99)], 1),
            "memory_growth_mib": round(server.memory() - before, 1),
            "tracebacks": server.complaints(),
        }


def unlimited() -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)


async def _talk(client: httpx.AsyncClient, url: str, end: float) -> list[tuple[float, str]]:
    results = []
    while time.monotonic() < end:
        results.append(await _one_answer(client, url, "".join(random.choices(LETTERS, k=16))))
    return results


async def _one_answer(client: httpx.AsyncClient, url: str, nonce: str) -> tuple[float, str]:
    """Seconds to the first byte, and "ok", "mixed" or the name of an error."""
    began, first, text = time.monotonic(), 0.0, ""
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body(f"胃疼 {nonce}", stream=True)) as response:
            async for line in response.aiter_lines():
                first = first or time.monotonic() - began
                if line.startswith("data: {"):
                    value = json.loads(line[6:])
                    text += "".join(choice["delta"].get("content") or "" for choice in value["choices"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return first, type(error).__name__
    return first, "ok" if text.split() == [nonce] * 40 else "mixed"


async def malformed(folder: str) -> dict[str, Any]:
    generator = random.Random(0)
    statuses: dict[int, int] = {}
    async with started(0, folder) as server, unlimited() as client:
        await _broken(client, server.url, generator, 100, {})
        before = server.memory()
        await _broken(client, server.url, generator, MALFORMED, statuses)
        growth = server.memory() - before
        alive = (await client.get(f"{server.url}/health")).status_code == 200
        server_errors = sum(count for status, count in statuses.items() if status >= 500)
        counts = {"requests": MALFORMED, "statuses": dict(sorted(statuses.items())), "status_5xx": server_errors}
        return counts | {"tracebacks": server.complaints(), "memory_growth_mib": round(growth, 1), "alive": alive}


async def _broken(client: httpx.AsyncClient, url: str, generator: random.Random, count: int, statuses: dict[int, int]) -> None:
    for _ in range(count):
        data, headers = broken_request(generator)
        path = generator.choice(["/v1/chat/completions"] * 4 + ["/v1/feedback"])
        try:
            response = await client.post(url + path, content=data, headers=headers)
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        except httpx.HTTPError:  # the connection was closed on us: no answer is an answer here
            statuses[0] = statuses.get(0, 0) + 1


def broken_request(generator: random.Random) -> tuple[bytes, dict[str, str]]:
    """One of sixteen ways in which a request can be wrong, with random size and content."""
    size = generator.randint(1, 50_000)
    values: list[Any] = [None, -1, 1e12, 10**30, "x", [], {}, True, [[]], "\x00", "x" * size]
    field = generator.choice(
        ["model", "messages", "temperature", "top_p", "max_tokens", "stop", "n", "seed", "stream", "response_format"]
    )
    raw = [
        b"{" * size,
        b"[" * size,
        bytes(generator.getrandbits(8) for _ in range(min(size, 500))),
        b'{"model": "demo", "temperature": NaN}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "demo", "seed": ' + b"9" * size + b"}",
        b"",
        json.dumps(body("x"))[: generator.randint(1, 40)].encode(),
        b'"' + b"x" * 1_200_000 + b'"',
    ]
    kinds = [json.dumps(body("胃疼") | {field: generator.choice(values)}).encode() for _ in range(6)]
    turns = [{"role": generator.choice(["user", "robot", 7, None]), "content": generator.choice(values)} for _ in range(3)]
    data = generator.choice([*raw, *kinds, json.dumps({"model": "demo", "messages": turns}).encode()])
    kind = generator.choice(["application/json"] * 8 + ["text/plain", "", "multipart/form-data; boundary=x"])
    return data, {"content-type": kind, "x-long": "h" * generator.choice([1, 1000, 20_000])}


async def leaving(folder: str) -> dict[str, Any]:
    async with started(ENGINE, folder) as server, unlimited() as client:
        await _leave(server.url)
        before, times = server.descriptors(), []
        for _ in range(LEAVING // 10):
            await asyncio.gather(*(_leave(server.url) for _ in range(10)))
            left = time.monotonic()
            while await gauge(client, server.url, "xinglin_running"):
                await asyncio.sleep(0.005)
            times.append(time.monotonic() - left)
        result = {"clients": LEAVING, "slowest_release_ms": round(1000 * max(times), 1)}
        lost = {
            "places_lost": await gauge(client, server.url, "xinglin_queued"),
            "descriptors_lost": server.descriptors() - before,
        }
        return result | lost | {"tracebacks": server.complaints()}


async def _leave(url: str) -> None:
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body("x y", stream=True)) as response,
    ):
        async for _ in response.aiter_bytes():
            break


async def page(folder: str) -> dict[str, Any]:
    executable = shutil.which("chromium")
    if not executable:
        return {"skipped": "no chromium"}
    from playwright.async_api import async_playwright

    script = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
    async with started(0, folder) as server, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        paints, loads = [], []
        for _ in range(5):
            context = await browser.new_context()
            tab = await context.new_page()
            sizes: list[int] = []
            tab.on("response", lambda response, sizes=sizes: sizes.append(int(response.headers.get("content-length", 0))))
            await tab.goto(server.url, wait_until="networkidle")
            paints.append(await tab.evaluate(script))
            loads.append((len(sizes), sum(sizes)))
            await context.close()
        await browser.close()
        median = round(statistics.median(paints), 1)
        return {
            "requests": loads[-1][0],
            "bytes": loads[-1][1],
            "first_paint_ms_median": median,
            "first_paint_ms_max": round(max(paints), 1),
        }


async def together(seconds: float, folder: str) -> dict[str, Any]:
    async with started(ENGINE, folder) as server:
        before = server.memory()
        result = await generation.together(server.url, seconds)
        growth = round(server.memory() - before, 1)
        return result | {"memory_growth_mib": growth, "tracebacks": server.complaints()}


async def _part(name: str, seconds: float, folder: str) -> dict[str, Any]:
    if name in LONG:
        return await LONG[name](seconds, folder)
    return await SHORT[name](folder)


async def measure(parts: list[str], seconds: float) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            results[part] = {"date": datetime.date.today().isoformat(), **await _part(part, seconds, folder)}
        for name, value in results[part].items():
            print(f"{part:10} {name:24} {value}", flush=True)
    return results


LONG = {"streams": streams, "together": together}
SHORT = {
    "malformed": malformed,
    "leaving": leaving,
    "page": page,
    "ratio": generation.ratio,
    "structure": generation.structure,
    "constraint": generation.constraint,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--parts", default=",".join((*LONG, *SHORT)))
    options.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        serve(int(chosen.serve[0]), chosen.serve[1], float(chosen.serve[2]))
        return
    path = common.RESULTS / "serve.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {part: before[part] for part in (*LONG, *SHORT) if part in before}
    common.save("serve", kept | asyncio.run(measure(chosen.parts.split(","), chosen.seconds)))


if __name__ == "__main__":
    main()
