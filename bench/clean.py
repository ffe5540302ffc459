"""What cleaning costs: rows per CPU-second and memory, beside data-juicer, datasketch and datasets.map on the same rows.

    python bench/clean.py rows --count 1000000        read + normalise + filter + personal data, then copies; peak memory
    python bench/clean.py peers --count 20000         the same work by each peer, each in its own environment (bench/peers/*.sh)
    python bench/clean.py recall                      copies found, against brute force over all pairs
    python bench/clean.py ray --count 200000          the stage on a local cluster of two nodes; memory of driver and workers
    python bench/clean.py big --count 26000000        the same on gzipped files of a million short rows (40 GB of disk)
    python bench/clean.py numbers --count 26000000    what a driver and a band's task hold for so many rows, without their texts
    python bench/clean.py hostile                     a 2 GB array, a 50 MB line and the like: outcome, seconds, memory

Rows are semi-synthetic: sentences of the real corpora under shared/data recombined at their real lengths, with copies, edits
and personal data put in at the rates below. So rates of what is found say nothing about any corpus. CPU-seconds are user +
system over the whole process tree; wall time is not compared, since the machine is shared.
"""

import argparse
import gzip
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]
SHARED = ROOT.parent / "shared" / "data"
PEERS = ROOT / ".peers"
MILLION = 1_000_000
EXACT, NEAR, PERSONAL, MARKUP = 0.05, 0.05, 0.03, 0.05


# ---------------------------------------------------------------- rows


def sentences() -> tuple[list[str], list[str]]:
    """Questions and answer sentences of the real corpora."""
    from xinglin import reading
    from xinglin.shapes import Dialogue

    asked, said = [], []
    for name in ("toyhom/样例_内科5000-6000.csv", "zhongjing/huatuo26M_test.json"):
        for row in reading.dialogues(SHARED / name):
            if isinstance(row, Dialogue):
                asked.append(row.turns[0].replace("\n", "，"))
                said += [part for part in re.split(r"(?<=[。！？])", row.turns[-1]) if 8 <= len(part) <= 120]
    return asked, said


def generate(count: int, seed: int = 7, short: bool = False) -> Iterator[dict[str, str]]:
    """``short``: answers of three pieces of sentences; one whole sentence would make millions of rows alike."""
    draw = random.Random(seed)
    asked, said = sentences()
    recent: list[dict[str, str]] = []
    for _ in range(count):
        chance = draw.random()
        if recent and chance < EXACT:
            row = dict(draw.choice(recent))
        elif recent and chance < EXACT + NEAR:
            row = edited(draw, draw.choice(recent))
        else:
            answer = asked_anew(draw, said) + "。" if short else "".join(draw.choices(said, k=draw.randint(2, 6)))
            row = {"question": asked_anew(draw, asked), "answer": answer}
        if draw.random() < PERSONAL:
            row["question"] += f"，我叫王小{draw.choice('丽明芳强')}，电话1{draw.randint(3000000000, 9999999999)}"
        if draw.random() < MARKUP:
            row["answer"] = f"<p>{row['answer']}</p>&nbsp;<br/>"
        recent.append(row)
        if len(recent) > 20_000:
            recent[draw.randrange(20_000)] = recent.pop()
        yield row


def asked_anew(draw: random.Random, asked: Sequence[str]) -> str:
    """Pieces of three questions, of like length: as long as real ones, and even among millions seldom like any other."""
    starts = ((question, draw.randrange(max(len(question) - 15, 1))) for question in draw.choices(asked, k=3))
    return "，".join(question[start : start + draw.randint(8, 16)] for question, start in starts)


def edited(draw: random.Random, row: dict[str, str]) -> dict[str, str]:
    """A copy with one to four characters changed."""
    answer = list(row["answer"])
    for _ in range(draw.randint(1, 4)):
        answer[draw.randrange(len(answer))] = draw.choice("的了是在也就都很先再")
    return {"question": row["question"], "answer": "".join(answer)}


def corpus(count: int, folder: Path) -> Path:
    """A JSON Lines file of ``count`` rows, made once per folder."""
    path = folder / f"rows-{count}.jsonl"
    if not path.exists():
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in generate(count))
    return path


def short_corpus(count: int, folder: Path) -> Path:
    """A pattern that names gzipped files of a million rows or less, made once per folder."""
    for number in range(-(-count // MILLION)):
        path = folder / f"short-{count}-{number:02}.jsonl.gz"
        if path.exists():
            continue
        with gzip.open(path.with_suffix(".part"), "wt", 1, encoding="utf-8") as file:
            rows = generate(min(MILLION, count - number * MILLION), number, short=True)
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.with_suffix(".part").rename(path)
    return folder / f"short-{count}-*.jsonl.gz"


# ---------------------------------------------------------------- measuring


def cpu() -> float:
    """User and system seconds of this process and of its children that ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak() -> float:
    """Peak resident memory of this process, in GB; pages of mapped files are in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def child(*arguments: str, python: Path = Path(sys.executable), timeout: int = 6 * 3600) -> dict[str, Any]:
    """Run this file's step in a process of its own; its last line of output is its result."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return {"failed": done.stderr[-400:]}
    result = json.loads(done.stdout.strip().splitlines()[-1])
    result["cpu_seconds"] = round(sum(after[:2]) - sum(before[:2]), 2)
    return {**result, "wall_seconds": round(time.monotonic() - started, 1)}


# ---------------------------------------------------------------- steps, each in a process of its own


def watch(peaks: dict[str, float]) -> None:
    """Note the most memory this process has of its own (GB, without mapped files), looked at every half second."""
    while True:
        found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
        peaks["own_peak_gb"] = max(peaks["own_peak_gb"], int(found[1]) / 1e6 if found else 0.0)
        time.sleep(0.5)


def step_whole(path: Path, work: Path) -> dict[str, Any]:
    """The stage as `xinglin clean` runs it, report and all, with the CPU-seconds of its steps."""
    from xinglin import cli, config
    from xinglin.data import clean, clusters, parts

    spent: dict[str, float] = {}
    peaks = {"own_peak_gb": 0.0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()

    def timed(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            start = cpu()
            result = function(*arguments)
            spent[name] = spent.get(name, 0) + cpu() - start
            return result

        return call

    clusters.write_sketch = timed("sketch", clusters.write_sketch)
    clusters.find = timed("find", clusters.find)
    clean._prepare = timed("prepare and sketch", clean._prepare)
    parts.write_outcome = timed("outcome", parts.write_outcome)
    recipe = config.build({"name": "bench", "model": "demo", "runs": str(work / "runs"), "data": [str(path)]})
    start = cpu()
    facts = cli.execute("clean", recipe)
    prepare = spent["prepare and sketch"] - spent["sketch"]
    return {
        "rows": facts["rows"],
        "prepare_seconds": prepare,
        "copies_seconds": spent["sketch"] + spent["find"],
        "outcome_seconds": spent["outcome"],
        "stage_seconds": cpu() - start,
        "copies": facts["exact_duplicate"] + facts["near_duplicate"],
        "facts": facts,
        "peak_gb": peak(),
        **peaks,
    }


RAY_NODES = """
import json, os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
data = sorted(map(str, Path(sys.argv[1]).parent.glob(Path(sys.argv[1]).name)))
import ray
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**9})
nodes.add_node(num_cpus=1, object_store_memory=10**9)
ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
from xinglin import cli, config
recipe = config.build({"name": "ray", "model": "demo", "runs": sys.argv[2], "data": data, "clean": {"engine": "ray"}})
facts = cli.execute("clean", recipe)
copies = facts["exact_duplicate"] + facts["near_duplicate"]
print(json.dumps({"rows": facts["rows"], "kept": facts["kept"], "copies": copies, "nodes": len(ray.nodes())}))
ray.shutdown()
nodes.shutdown()
"""


def step_ray(path: Path, work: Path) -> dict[str, Any]:
    """The stage on two nodes; peak memory (GB) of its driver and of its largest worker, sampled every half second."""
    driver = subprocess.Popen([sys.executable, "-c", RAY_NODES, str(path), str(work)], stdout=subprocess.PIPE, text=True)
    peaks = {"driver": 0.0, "worker": 0.0}
    while driver.poll() is None:
        for role, memory in resident(driver.pid):
            peaks[role] = max(peaks[role], memory)
        time.sleep(0.5)
    assert driver.stdout is not None
    result: dict[str, Any] = json.loads(driver.stdout.read().splitlines()[-1])
    return {**result, **{f"{role}_peak_gb": round(memory, 3) for role, memory in peaks.items()}}


def step_numbers(path: Path, part: Path) -> dict[str, Any]:
    """What grows with the rows, for hashes alone: the driver's arrays, or one band's list of candidate pairs."""
    import numpy as np

    from xinglin.data import clusters, distributed

    start, work = cpu(), path.parent
    if part.name == "driver":
        joined, single = clusters.join_exact(clusters.column([path], 0))
        np.save(work / "single.npy", single)
        return {"copies": len(clusters.copies(joined.roots())), "seconds": cpu() - start, "peak_gb": peak()}
    pairs = np.load(distributed._candidates([path], work, 1))
    return {"pairs": len(pairs), "seconds": cpu() - start, "peak_gb": peak()}


def resident(driver: int) -> Iterator[tuple[str, float]]:
    """Memory of its own (GB, without mapped files) of the driver and of every Ray worker."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text, words = status.read_text(), status.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        role = "driver" if int(status.parent.name) == driver else "worker" if words.startswith(b"ray::") else ""
        if role and (found := re.search(r"RssAnon:\s+(\d+)", text)):
            yield role, int(found[1]) / 1e6


# ---------------------------------------------------------------- commands


def numbers(count: int, folder: Path) -> dict[str, Any]:
    """Random hashes in which as many rows are copies, exact or near, as in the other measurements."""
    import numpy as np

    draw = np.random.default_rng(7)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "sketch.npy"
        lines = np.lib.format.open_memmap(path, "w+", np.uint64, (2, count))
        for line, share in enumerate((EXACT, EXACT + NEAR)):
            lines[line] = draw.integers(0, 2**63, count, dtype=np.uint64)
            copied = draw.random(count) < share
            lines[line, copied] = lines[line, draw.integers(0, count, int(copied.sum()))]
        del lines
        return {part: child(__file__, "step-numbers", str(path), part) for part in ("driver", "band")}


def ray(count: int, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return child(__file__, "step-ray", str(corpus(count, folder)), name)


def big(count: int, folder: Path) -> dict[str, Any]:
    """As many rows as the largest public corpus has, whole: reading to report on two nodes, every candidate checked."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return child(__file__, "step-ray", str(short_corpus(count, folder)), name)


def rows(count: int, folder: Path) -> dict[str, Any]:
    """Rows per CPU-second of the steps: prepare = read, normalise, filter, mask; copies = sketch, candidates, exact check."""
    path = corpus(count, folder)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        whole = child(__file__, "step-whole", str(path), name)
    rates = {step: round(count / whole[f"{step}_seconds"]) for step in ("prepare", "copies", "outcome", "stage")}
    return {
        "rows_per_cpu_second": rates,
        **{name: round(value, 2) if isinstance(value, float) else value for name, value in whole.items()},
    }


def recall(count: int, folder: Path) -> dict[str, Any]:
    """Removed rows against brute force: every pair's exact similarity by an inverted index over all 5-grams."""
    from xinglin.data import duplicates

    texts = [f"{row['question']}\x1e{row['answer']}" for row in islice(generate(count, 11), count)]
    truth = brute(texts)
    joined = duplicates.components(texts, 0.8)
    exact = duplicates.Components(len(texts))
    for first, second in truth:
        exact.join(first, second)
    found, wanted = joined.roots(), exact.roots()
    together = sum(int(found[first] == found[second]) for first, second in truth)
    removed, true_removed = (sum(root != number for number, root in enumerate(roots.tolist())) for roots in (found, wanted))
    wrong = sum(int(wanted[number] != wanted[root]) for number, root in enumerate(found.tolist()))
    return {
        "rows": count,
        "true_pairs": len(truth),
        "pair_recall": round(together / max(len(truth), 1), 4),
        "removed": removed,
        "removed_by_brute_force": true_removed,
        "wrongly_removed": wrong,
    }


def brute(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All pairs at similarity 0.8 or more: they share more than half of their grams, so rare grams find them all."""
    from collections import Counter, defaultdict

    from xinglin.data.duplicates import grams, overlap

    sets = [grams(text) for text in texts]
    often = Counter(gram for found in sets for gram in found)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(sets):
        rarest = sorted(found, key=lambda gram: (often[gram], gram))[: len(found) - int(0.8 * len(found)) + 1]
        for gram in rarest:
            holders[gram].append(number)
    pairs = {pair for numbers in holders.values() for pair in combinations(numbers, 2)}
    return [(first, second) for first, second in sorted(pairs) if overlap(sets[first], sets[second]) >= 0.8]


def peers(count: int, folder: Path) -> dict[str, Any]:
    """Every peer on the same rows; each does the preparation, the search for copies, or both, as it offers them."""
    path = corpus(count, folder)
    patterns = folder / "patterns.json"
    patterns.write_text(json.dumps(python_patterns()), encoding="utf-8")
    script, plain = str(ROOT / "bench/peers/clean_peers.py"), PEERS / "datasets/bin/python"
    results = {
        "xinglin prepare and copies": rows(count, folder),
        "datasets.map prepare": child(script, "map", str(path), str(patterns), python=plain),
        "datasketch copies": child(script, "datasketch", str(path), python=plain),
        "data-juicer prepare": juicer(path, folder, "prepare"),
        "data-juicer copies": juicer(path, folder, "copies"),
    }
    for name, result in results.items():
        if "cpu_seconds" in result and not name.startswith("xinglin"):
            result["rows_per_cpu_second"] = round(count / result["cpu_seconds"])
    juicer_seconds = sum(results[f"data-juicer {step}"]["cpu_seconds"] for step in JUICER)
    times = round(juicer_seconds / results["xinglin prepare and copies"]["cpu_seconds"], 1)
    return {"rows": count, "peers": results, "whole_process_times_data_juicer": times}


def python_patterns() -> dict[str, Any]:
    """The filters' patterns for Python's own engine."""
    from xinglin.data import filters, normalise

    names = ("_MOJIBAKE", "_GREETING", "_NON_ANSWER", "_ADVERTISEMENT", "_PROMOTION", "_HANGING", "_FINISHED", "_CLOSING")
    found = {name: re.sub(r"\\x\{(\w+)\}", r"\\u\1", vars(filters)[name]) for name in names}
    return {
        **found,
        "_CONTACT": list(filters._CONTACT),
        "tags": normalise._BLOCK_TAG + "|" + normalise._INLINE_TAG.removeprefix("(?i)"),
    }


JUICER = {
    "prepare": """  - clean_html_mapper:
  - fix_unicode_mapper:
      normalization: NFKC
  - whitespace_normalization_mapper:
  - remove_non_chinese_character_mapper_off:
  - clean_email_mapper:
  - clean_links_mapper:
  - clean_ip_mapper:
  - text_length_filter:
      min_len: 10
      max_len: 4000
  - character_repetition_filter:
      rep_len: 10
      max_ratio: 0.5
  - special_characters_filter:
      max_ratio: 0.5
""".replace("  - remove_non_chinese_character_mapper_off:\n", ""),
    "copies": """  - document_minhash_deduplicator:
      tokenization: character
      window_size: 5
      jaccard_threshold: 0.8
      num_permutations: 128
      num_bands: 16
      num_rows_per_band: 8
      lowercase: false
""",
}


def juicer(path: Path, folder: Path, step: str) -> dict[str, Any]:
    """data-juicer on the same rows, its own operators: fewer personal data kinds than here, no exact check of copies."""
    source, output, settings = folder / "juicer.jsonl", folder / f"juicer-{step}/out.jsonl", folder / f"juicer-{step}.yaml"
    with open(path, encoding="utf-8") as read, open(source, "w", encoding="utf-8") as write:
        for row in map(json.loads, read):
            write.write(json.dumps({"text": f"{row['question']}\n{row['answer']}"}, ensure_ascii=False) + "\n")
    head = f"project_name: bench\ndataset_path: {source}\nexport_path: {output}\nnp: 1\nuse_cache: false\nprocess:\n"
    settings.write_text(head + JUICER[step], encoding="utf-8")
    program = PEERS / "data-juicer/bin/dj-process"
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(PEERS / "data-juicer/bin/python"), str(program), "--config", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return {"failed": done.stderr[-400:]}
    with open(output, encoding="utf-8") as lines:
        kept = sum(1 for _ in lines)
    spent = round(sum(after[:2]) - sum(before[:2]), 2)
    return {"kept": kept, "cpu_seconds": spent, "wall_seconds": round(time.monotonic() - started, 1)}


HOSTILE = {
    "an array of 2 GB": lambda file: big_array(file, 2 * 10**9),
    "one line of 50 MB": lambda file: file.write('{"question": "胃疼", "answer": "' + "长" * 17_000_000 + '"}\n' + GOOD_LINE),
    "JSON 10,000 deep": lambda file: file.write("[" * 10_000 + "]" * 10_000 + "\n" + GOOD_LINE),
    "100,000 NUL bytes": lambda file: file.write(
        '{"question": "胃' + "\0" * 100_000 + '疼怎么办？", "answer": "先观察三天，再到消化内科检查。"}\n'
    ),
}
GOOD_LINE = (
    json.dumps({"question": "头晕怎么办？", "answer": "先测量血压，若持续头晕请到神经内科就诊。"}, ensure_ascii=False) + "\n"
)


def big_array(file: Any, size: int) -> None:
    item = json.dumps({"question": "胃疼怎么办？", "answer": "先观察三天，再到消化内科检查。" * 60}, ensure_ascii=False)
    file.write("[" + item)
    for _ in range(size // len(item.encode())):
        file.write(",\n" + item)
    file.write("]")


def step_read(path: Path) -> dict[str, Any]:
    from collections import Counter

    from xinglin import records

    start = cpu()
    outcome = Counter("read" if isinstance(row, records.Record) else row.reason[:60] for row in records.read(path))
    return {"outcome": dict(outcome), "seconds": cpu() - start, "peak_gb": peak()}


def hostile(folder: Path) -> dict[str, Any]:
    results = {}
    for name, write in HOSTILE.items():
        path = folder / "hostile.json"
        with open(path, "w", encoding="utf-8") as file:
            write(file)
        results[name] = child(__file__, "step-read", str(path))
        path.unlink()
    return results


def main() -> None:
    steps = {"step-whole": step_whole, "step-read": step_read, "step-ray": step_ray, "step-numbers": step_numbers}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "peers", "recall", "ray", "big", "numbers", "hostile", *steps])
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "xinglin-bench")
    options = parser.parse_args()
    if options.what in steps:
        print(json.dumps(steps[options.what](*options.paths), ensure_ascii=False))
        return
    from common import RESULTS, save

    options.folder.mkdir(parents=True, exist_ok=True)
    commands = {"rows": rows, "peers": peers, "recall": recall, "ray": ray, "big": big, "numbers": numbers}
    result = hostile(options.folder) if options.what == "hostile" else commands[options.what](options.count, options.folder)
    key = options.what if options.what == "hostile" else f"{options.what}-{options.count}"
    path = RESULTS / "clean.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    save("clean", {**{name: value for name, value in known.items() if name not in {"date", "hardware", "python"}}, key: result})
    print(json.dumps(result, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
