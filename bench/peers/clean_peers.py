"""The peers of bench/clean.py that are libraries; runs in .peers/datasets and prints one line of JSON."""

import html
import json
import re
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def plain_map(path: Path, patterns: Path) -> dict[str, Any]:
    """Normalise, filter and mask with datasets.map and Python's own regular expressions: the same patterns, row by row."""
    from datasets import load_dataset

    from xinglin.safety import pii

    found = json.loads(patterns.read_text(encoding="utf-8"))
    contact, tags = [re.compile(pattern) for pattern in found.pop("_CONTACT")], re.compile(found.pop("tags"))
    named = {name: re.compile(pattern) for name, pattern in found.items()}
    loop = re.compile(r"(.{4,80}?)\1{3,}", re.DOTALL)

    def clean(row: dict[str, str]) -> dict[str, Any]:
        question, answer = (tidy(row[name]) for name in ("question", "answer"))
        bad = (
            not 10 <= len(answer) <= 4000
            or question == answer
            or bool(named["_MOJIBAKE"].search(answer))
            or (len(answer) < 80 and len(re.sub(r"\W", "", named["_GREETING"].sub("", answer))) < 4)
            or (len(answer) < 40 and bool(named["_NON_ANSWER"].search(answer)))
            or any(pattern.search(answer) for pattern in contact)
            or bool(named["_ADVERTISEMENT"].search(answer))
            or len(set(named["_PROMOTION"].findall(answer))) >= 3
            or bool(named["_HANGING"].search(answer[-12:]))
            or open_ended(answer)
            or (len(set(answer)) * 2 < len(answer) and bool(loop.search(answer)))
        )
        return {"text": pii.mask(f"{question}\x1e{answer}").text, "bad": bad}

    def open_ended(answer: str) -> bool:
        end = answer[-12:]
        return (
            not named["_FINISHED"].search(end) and not named["_CLOSING"].search(end) and len(re.findall("[。！？]", answer)) >= 2
        )

    def tidy(text: str) -> str:
        text = tags.sub("\n", html.unescape(text))
        text = re.sub(r"[\x00-\x08\x0b-\x1f\u200b-\u200f\ufeff]", "", unicodedata.normalize("NFKC", text))
        return re.sub(r" {2,}", " ", re.sub(r"\n{3,}", "\n\n", text)).strip()

    with tempfile.TemporaryDirectory() as cache:
        rows = (
            load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
            .map(clean)
            .filter(lambda row: not row["bad"])
        )
        return {"kept": len(rows)}


def datasketch_copies(path: Path) -> dict[str, Any]:
    """MinHash LSH of datasketch over character 5-grams, candidates accepted by their estimated similarity, first row kept."""
    from datasketch import MinHash, MinHashLSH

    index, signatures, copies = MinHashLSH(params=(16, 8), num_perm=128), [], 0
    for number, row in enumerate(map(json.loads, path.open(encoding="utf-8"))):
        text = f"{row['question']}\x1e{row['answer']}"
        signature = MinHash(num_perm=128)
        signature.update_batch([text[start : start + 5].encode() for start in range(max(len(text) - 4, 1))])
        near = [other for other in index.query(signature) if signatures[other].jaccard(signature) >= 0.8]
        copies += bool(near)
        signatures.append(signature)
        index.insert(number, signature)
    return {"copies": copies}


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    print(json.dumps({"map": plain_map, "datasketch": datasketch_copies}[name](*map(Path, paths))))
