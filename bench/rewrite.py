"""Claims of the rewrite stage, against a mock endpoint on loopback: rate, CPU, memory, faults, kills.

``python bench/rewrite.py rate`` (also faults, kills, memory) prints a table and writes ``results/rewrite_rate.json``. Peers run
in the same table: the original's own settings (20 workers, batches of 100 that wait for their slowest row) as a small loop,
and bespokelabs-curator in the environment that peers/curator.sh makes (left out where that is missing).
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from common import save

from xinglin import config, llm, records, schema
from xinglin.data import journal as journals
from xinglin.data import rewrite, rewrite_job

HERE = Path(__file__).parent
MOCK = HERE.parent / "tests" / "mock_endpoint.py"
CURATOR = HERE.parent / ".peers" / "curator" / "bin" / "python"
ANSWER = (
    "多半是没睡好引起的，建议注意休息，少喝咖啡，不要熬夜。头痛明显时可以口服布洛芬0.3g，一日两次，不超过3天，胃溃疡患者禁用。"
    "不好转就去神经内科看看，必要时查头颅CT。平时记下发作的时间、部位和诱因，血压高的人要先量血压。"
)
PRICES = {"m": {"input": 2.0, "cached_input": 0.5, "output": 3.0}}
COMPLETE = schema.Answer.from_points([("头痛。", "紧张型头痛。"), ("没睡好。", "偏头痛。"), ("看神经内科。", ANSWER)]).render()


@contextmanager
def endpoint(*options: str) -> Iterator[str]:
    """The mock in a process of its own; its address."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen([sys.executable, MOCK, *options], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        found: dict[str, Any] = json.load(response)
    return found


def corpus(folder: Path, rows: int, complete: int = 0) -> None:
    """``rows`` records, the first ``complete`` of them already in three sections."""

    def each() -> Iterator[records.Record]:
        for number in range(rows):
            turns = [
                {"role": "user", "content": f"头痛{number}天，睡眠不好，怎么办？"},
                {"role": "assistant", "content": COMPLETE if number < complete else ANSWER},
            ]
            yield records.Record(f"{number:016x}", f"{number:016x}", turns, {"file": "bench", "row": number})

    records.write_jsonl(folder / "t" / "1-clean" / "records.jsonl", each())


def recipe(folder: Path, url: str, **values: Any) -> config.Recipe:
    values = {"base_url": url, "model": "m", "prices": PRICES, **values}
    return config.build({"name": "t", "model": "demo", "runs": str(folder), "rewrite": values})


def stage(folder: Path, url: str, **values: Any) -> subprocess.Popen[str]:
    """The whole stage in a process of its own, which prints seconds, CPU seconds and the most memory it held."""
    arguments = json.dumps({"folder": str(folder), "url": url, **values})
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        [sys.executable, __file__, "stage", "--arguments", arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def run_stage(arguments: dict[str, Any]) -> None:
    folder, url = Path(arguments.pop("folder")), arguments.pop("url")
    rewrite_job.TIMEOUT = arguments.pop("seconds", rewrite_job.TIMEOUT)
    started, used = time.monotonic(), time.process_time()
    try:
        rewrite.run(recipe(folder, url, **arguments), folder / "t" / "2-rewrite")
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.monotonic() - started, "cpu": time.process_time() - used, "memory": memory}))


# ---------------------------------------------------------------- rate


def rate(options: argparse.Namespace) -> dict[str, Any]:
    """The rate is what the endpoint sees: requests over the time from its first request to its last answer, so that reading,
    export and report are not in it, while the start and the tail are; curator's is its own time, which holds only the requests
    (it asks once before that). ``whole`` and CPU are of the whole stage, or of curator's call."""
    rows = [timed(original, 300)]
    for flying, count in ((flying, flying * options.rounds) for flying in options.flying):
        rows.append(timed(ours, flying, count))
        if CURATOR.exists():
            rows.append(timed(curator, flying, count))
    head = f"{'what':34}{'in flight':>10}{'rows':>7}{'rows/s':>9}{'ideal':>8}{'share':>8}"
    print(f"{head}{'whole run':>11}{'CPU ms/row':>12}{'mock':>6}{'loop':>6}")
    for row in rows:
        share, whole = row["rate"] / row["ideal"], row["whole"] / row["ideal"]
        figures = f"{row['rate']:9.1f}{row['ideal']:8.1f}{share:8.1%}{whole:11.1%}{row['cpu']:12.2f}"
        figures += f"{row['mock']:6.2f}{row['loop']:6.2f}"
        print(f"{row['what']:34}{row['flying']:10}{row['rows']:7}{figures}")
    return {"latency_seconds": 2.0, "rows": rows, "load": os.getloadavg()}


def timed(measure: Callable[..., dict[str, Any]], *arguments: int) -> dict[str, Any]:
    """With how long one loop takes on this machine just before and after: it is shared, and its speed halves at times."""
    before = loop()
    found = measure(*arguments)
    return {**found, "loop": (before + loop()) / 2}


def loop() -> float:
    """CPU seconds of adding up ten million numbers."""
    started, total = time.process_time(), 0
    for number in range(10_000_000):
        total += number
    return time.process_time() - started


def result(what: str, flying: int, rows: int, seconds: float, cpu: float, seen: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": what, "flying": flying, "most_flying": seen["most_flying"], "rows": rows, "ideal": flying / 2.0,
        "rate": seen["requests"] / (seen["last"] - seen["first"]), "whole": rows / seconds,
        "cpu": cpu / rows * 1000, "mock": seen["cpu"] / seen["requests"] * 1000,
    }  # fmt: skip


def ours(flying: int, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, endpoint("--latency", "2") as url:
        corpus(Path(name), rows)
        out, error = (process := stage(Path(name), url, concurrency=flying)).communicate()
        assert process.returncode == 0, error
        found = json.loads(out)
        return result("Xinglin", flying, rows, found["seconds"], found["cpu"], stats(url))


def curator(flying: int, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, endpoint("--latency", "2") as url:
        path = Path(name) / "prompts.jsonl"
        prompts = ({"messages": schema.rewrite_messages(f"头痛{number}天，怎么办？", ANSWER)} for number in range(rows))
        records.write_jsonl(path, prompts)
        environment = {**os.environ, "HOME": name, "CURATOR_CACHE_DIR": name}
        command = [str(CURATOR), str(HERE / "peers" / "curator_rewrite.py"), url, str(path), str(flying)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout.splitlines()[-1])
        row = result("bespokelabs-curator 0.1.31", flying, found["rows"], found["seconds"], found["cpu"], stats(url))
        return {**row, "rate": row["whole"]}


def original(rows: int) -> dict[str, Any]:
    """20 workers, 0.1 s pause after each request, batches of 100 with a barrier."""

    async def all_batches(url: str) -> None:
        place = llm.endpoint(url, "m")
        gate = asyncio.Semaphore(20)

        async def one(http: aiohttp.ClientSession, number: int) -> None:
            async with gate:
                await llm.chat(http, place, schema.rewrite_messages(f"头痛{number}天", ANSWER), 800)
                await asyncio.sleep(0.1)

        async with llm.client(place, 20) as http:
            for start in range(0, rows, 100):
                await asyncio.gather(*(one(http, number) for number in range(start, start + 100)))

    with endpoint("--latency", "2") as url:
        started, used = time.monotonic(), time.process_time()
        asyncio.run(all_batches(url))
        seconds, cpu = time.monotonic() - started, time.process_time() - used
        return result("the original's settings", 20, rows, seconds, cpu, stats(url))


# ---------------------------------------------------------------- faults


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """60 % of the answers are faults; the command is run again until nothing is unfinished."""
    rows = 1500
    with tempfile.TemporaryDirectory() as name, endpoint("--latency", "0.05", "--faults", "0.6", "--drip", "30") as url:
        folder = Path(name)
        corpus(folder, rows)
        runs = 1
        while (process := stage(folder, url, concurrency=64, seconds=2.0)).wait() == 2:
            assert runs < 10, process.communicate()[1]
            runs += 1
        seen = stats(url)
        found = journals.read(folder / "t" / "2-rewrite" / "journal.sqlite")
        kept = records.load(folder / "t" / "2-rewrite" / "records.jsonl")
        unmarked = sum(row.answer == ANSWER or row.meta.get("rewrite") != "accepted" for row in kept)
        reasons = json.loads((folder / "t" / "2-rewrite" / "report.json").read_text(encoding="utf-8"))
    charged = _money(seen["charged"])
    print(f"rows {rows}, runs {runs}, requests {seen['requests']}, faults {seen['faults']}")
    print(f"states {found.states}, originals passed on unmarked {unmarked}")
    print(f"ledger {found.price:.6f}, endpoint {charged:.6f}, difference {found.price / charged - 1:+.4%}")
    print(f"answers that never arrived: endpoint {_money(seen['lost']):.6f}, at most by the ledger {found.lost_price:.6f}")
    return {
        "rows": rows, "runs": runs, "requests": seen["requests"], "faults": seen["faults"], "states": found.states,
        "unmarked": unmarked,
        "ledger": found.price, "endpoint": charged, "lost_endpoint": _money(seen["lost"]), "lost_ledger": found.lost_price,
        "rejected": reasons["rejected"],
    }  # fmt: skip


def _money(usage: dict[str, int]) -> float:
    used = Counter(usage)
    price = PRICES["m"]
    fresh = (used["prompt"] - used["cached"]) * price["input"]
    return (fresh + used["cached"] * price["cached_input"] + used["completion"] * price["output"]) / 1e6


# ---------------------------------------------------------------- kills


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """kill -9 at random points until enough, then one run to the end."""
    rows, workers, rng = 5000, 16, random.Random(11)
    with tempfile.TemporaryDirectory() as name, endpoint("--latency", "0.3") as url:
        folder = Path(name)
        corpus(folder, rows)
        path = folder / "t" / "2-rewrite" / "journal.sqlite"
        broken, finished = 0, list[tuple[set[str], dict[str, int]]]()
        for _ in range(options.kills):
            process = stage(folder, url, concurrency=workers)
            before = stats(url)["requests"]
            while stats(url)["requests"] == before and process.poll() is None:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 2.0))
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            accepted, whole = _accepted(path)
            broken += not whole
            finished.append((accepted, stats(url)["rows"]))
        last = stage(folder, url, concurrency=workers)
        error = last.communicate()[1]
        assert last.returncode == 0, error
        seen = stats(url)["rows"]
        kept = records.load(folder / "t" / "2-rewrite" / "records.jsonl")
    again = sum(seen[key] != counts[key] for accepted, counts in finished for key in accepted)
    repeated = sum(count - 1 for count in seen.values())
    done = len(finished[-1][0])
    print(f"{options.kills} kills, {rows} rows, {workers} workers: {done} rows were finished at the last kill")
    print(f"lost {rows - len(kept)}, completed rows sent again {again}, damaged journals {broken}")
    print(f"sent again in flight {repeated} (bound {options.kills * workers})")
    return {
        "kills": options.kills, "rows": rows, "workers": workers, "lost": rows - len(kept), "completed_sent_again": again,
        "sent_again": repeated, "bound": options.kills * workers, "damaged": broken, "finished_at_last_kill": done,
    }  # fmt: skip


def _accepted(path: Path) -> tuple[set[str], bool]:
    """Questions (as the mock keys them) of the rows a stopped journal holds as finished, and whether it is whole."""
    connection = sqlite3.connect(path)
    found = {
        f"头痛{int(id, 16)}天，睡眠不好，怎么办？" for (id,) in connection.execute("SELECT id FROM row WHERE state = 'accepted'")
    }
    (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return found, whole == "ok"


# ---------------------------------------------------------------- memory


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Most memory of the whole stage by rows; all of them are sent, or the last ``--sent`` while the others are complete."""
    found = []
    for rows in options.rows:
        sent = min(rows, options.sent or rows)
        with tempfile.TemporaryDirectory() as name, endpoint("--latency", "0.02") as url:
            corpus(Path(name), rows, rows - sent)
            process = stage(Path(name), url, concurrency=64)
            out, error = process.communicate()
            assert process.returncode == 0, error
            found.append({"rows": rows, "sent": sent, **json.loads(out)})
            seconds, cpu = found[-1]["seconds"], found[-1]["cpu"] / rows * 1000
            print(f"{rows:9} rows, {sent:9} sent: {found[-1]['memory']:6.0f} MiB, {seconds:7.1f} s, {cpu:5.2f} ms CPU a row")
    return {"rows": found}


PARTS = {"rate": rate, "faults": faults, "kills": kills, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=[*PARTS, "stage"])
    parser.add_argument("--arguments", default="")
    parser.add_argument("--flying", type=int, nargs="*", default=[64, 256, 1000], help="requests in flight of part rate")
    parser.add_argument("--rounds", type=int, default=40, help="rows of part rate, as a multiple of the requests in flight")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="of part memory")
    parser.add_argument("--sent", type=int, default=0, help="rows of each file of part memory to send; 0: all")
    options = parser.parse_args()
    if options.part == "stage":
        run_stage(json.loads(options.arguments))
    else:
        save(f"rewrite_{options.part}", PARTS[options.part](options))


if __name__ == "__main__":
    main()
