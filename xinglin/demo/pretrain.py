"""Train the built-in base model from scratch: a Qwen2-architecture model small enough to ship and to tune on two cores.

It shows the machinery, not medicine: 2.4 M parameters have learned what Chinese medical consultations sound like, and
nothing that may be relied on. What it is trained on: the public corpora Toyhom (MIT) and Zhongjing (Apache-2.0), question
and answer as they stand, in the chat template. Under the product's own system text it learns to answer in plain prose;
under another system text (``OUTLINE_SYSTEM``) to put an answer's sentences under numbered headings drawn at random, so
that tuning has a skill to call on. The three titles of the product are in none of its targets. Greedy decoding of a model
this small falls into loops, so the later phases go on with short points, and every other step pushes down the tokens that
close a loop the model just wrote (sequence-level unlikelihood, Welleck et al. 2019, arXiv 1908.04319).

    python -m xinglin.demo.pretrain ../shared/data phase1 --steps 2400
    python -m xinglin.demo.pretrain ../shared/data xinglin/demo/base --phase 2 --start phase1 --steps 500 --rate 1.2e-3

Reads ``toyhom/*.csv`` and ``zhongjing/*.json`` below the first folder, writes a model folder (float16 safetensors,
tokenizer, ``pretrain.json`` with settings and losses). Same seed, same machine: the same weights.
"""

import argparse
import hashlib
import json
import random
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from xinglin import records, schema

VOCABULARY = 4096
WIDTH, LAYERS, HEADS, KEY_HEADS, INNER = 192, 4, 6, 2, 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The pre-tokenizer of Qwen2: words, single digits, punctuation, white space.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
OUTLINE_SYSTEM = "请用编号的小标题分部分回答，每部分两点。"
HEADINGS = [
    "概述",
    "说明",
    "情况介绍",
    "要点整理",
    "初步看法",
    "背景知识",
    "相关因素",
    "注意事项",
    "生活指导",
    "后续安排",
    "常见问题",
    "总结",
    "补充说明",
    "日常护理",
    "饮食起居",
]
LABELS = [
    "第一点",
    "第二点",
    "主要情况",
    "需要了解",
    "相关说明",
    "特别提醒",
    "具体做法",
    "大致判断",
    "影响因素",
    "通常表现",
    "日常方面",
    "进一步说明",
    "可以这样做",
    "还要注意",
]
CONTACT = re.compile(r"[\w.]+@[\w.]+|https?://\S+|www\.\S+|\d{7,}|微信|QQ|热线|电话[:：]")


def read_pairs(folder: Path) -> list[tuple[str, str]]:
    """(question, answer) of every usable row, exact repeats removed."""
    pairs: dict[tuple[str, str], None] = {}
    for path in [
        *sorted(folder.glob("toyhom/*.csv")),
        folder / "zhongjing/huatuo26M_test.json",
        folder / "zhongjing/CMtMedQA_test.json",
    ]:
        for record in records.read(path):
            if isinstance(record, records.Record):
                question, answer = (tidy(text) for text in (record.question, record.answer))
                if 4 <= len(question) <= 160 and 20 <= len(answer) <= 320 and not CONTACT.search(question + answer):
                    pairs[question, finish(answer)] = None
    return list(pairs)


def held_back(question: str) -> bool:
    """One question in 64, chosen by its text: the same ones in both phases, whatever else is read."""
    return hashlib.sha256(question.encode()).digest()[0] % 64 == 0


def tidy(text: str) -> str:
    return re.sub(r"\s+", "", re.sub(r"<[^>]+>|&\w+;", "", text))


def finish(answer: str) -> str:
    """End an answer at its last finished sentence, or with a full stop."""
    return re.sub(r"[,，、;；:：.]+$", "", answer).removesuffix("。") + "。" if answer[-1] not in "！？" else answer


def outline(answer: str, random_: random.Random, phase: int) -> str | None:
    """The answer's own clauses under random headings, two numbered points each; None where it has too few clauses.

    In the second phase: three parts, at most two clauses and 50 characters a point, the rest of the answer left out.
    """
    clauses = re.findall(r"[^。！？；，]+[。！？；，]", answer)
    parts = random_.choice((2, 3, 3, 3, 4)) if phase == 1 else 3
    if phase > 1:
        clauses = [clause for clause in clauses if len(clause) <= 25][: random_.randint(6, 12)]
    if len(clauses) < 2 * parts:
        return None
    points = [
        re.sub(r"[。！？；，]$", "。", "".join(clauses[a:b])) for a, b in pairwise(cut(len(clauses), 2 * parts, phase, random_))
    ]
    sections = []
    for ordinal, heading in zip("一二三四", random_.sample(HEADINGS, parts), strict=False):
        lines = [f"{number}. {random_.choice(LABELS)}：{points.pop(0)}" for number in (1, 2)]
        sections.append(f"{ordinal}、{heading}\n" + "\n".join(lines))
    return "\n\n".join(sections)


def cut(clauses: int, points: int, phase: int, random_: random.Random) -> list[int]:
    """Where the points begin and end among the clauses."""
    if phase == 1:
        return [0, *sorted(random_.sample(range(1, clauses), points - 1)), clauses]
    double = set(random_.sample(range(points), clauses - points))
    sizes = [2 if i in double else 1 for i in range(points)]
    return [sum(sizes[:i]) for i in range(points + 1)]


def documents(pairs: list[tuple[str, str]], seed: int, phase: int) -> list[list[schema.Message]]:
    """One epoch of chats: half of them plain under the product's prompt, the rest in outline where the answer allows it."""
    random_ = random.Random(seed)
    chats = []
    for question, answer in pairs:
        outlined = outline(answer, random_, phase) if random_.random() < 0.5 else None
        if outlined:
            prompt = [{"role": "system", "content": OUTLINE_SYSTEM}, {"role": "user", "content": question}]
            chats.append([*prompt, {"role": "assistant", "content": outlined}])
        else:
            chats.append([*schema.messages(question), {"role": "assistant", "content": answer}])
    random_.shuffle(chats)
    return chats


def train_tokenizer(pairs: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, max_token_length=24, show_progress=False
    )
    # The prompt and the outline of an answer are in every row: give them short encodings.
    frame = [schema.SYSTEM, OUTLINE_SYSTEM, schema.Answer.from_points([("", "")] * 3).render()] * 300
    tokenizer.train_from_iterator([*frame, *(text for pair in pairs for text in pair)], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"],
        model_max_length=1024, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    wrapped.chat_template = TEMPLATE
    return wrapped


def new(pairs: list[tuple[str, str]]) -> tuple[PreTrainedTokenizerBase, Qwen2ForCausalLM]:
    tokenizer = train_tokenizer(pairs)
    return tokenizer, new_model(tokenizer)


def load(folder: Path) -> tuple[PreTrainedTokenizerBase, Qwen2ForCausalLM]:
    return AutoTokenizer.from_pretrained(folder), Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, intermediate_size=INNER, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.04,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def blocks(tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], length: int, epoch: int, phase: int) -> torch.Tensor:
    """One epoch as a (blocks, length) tensor of token ids, chats end to end."""
    texts = [str(tokenizer.apply_chat_template(chat, tokenize=False)) for chat in documents(pairs, epoch, phase)]
    ids = [i for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in row]
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--phase", type=int, choices=(1, 2), default=1)
    parser.add_argument("--start", type=Path, help="the model folder of the phase before")
    options = parser.parse_args()
    pairs = read_pairs(options.corpora)
    held = [pair for pair in pairs if held_back(pair[0])]
    pairs = [pair for pair in pairs if not held_back(pair[0])]
    tokenizer, model = load(options.start) if options.start else new(pairs)
    print(f"{len(pairs)} pairs, {model.num_parameters():,} parameters, vocabulary {len(tokenizer)}", flush=True)
    losses = train(model, tokenizer, pairs, options)
    held_loss = held_out(model, tokenizer, held, options.length, options.phase)
    print(f"held-out loss {held_loss:.3f}")
    model.half().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    settings = {key: str(value) for key, value in vars(options).items() if key not in {"corpora", "out", "start"}}
    sizes = {"pairs": len(pairs), "parameters": model.num_parameters()}
    facts = {"settings": settings, **sizes, "losses": losses, "held_out_loss": held_loss}
    records.write_json(options.out / "pretrain.json", facts)


def train(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], options: argparse.Namespace
) -> list[tuple[int, float]]:
    """AdamW, linear warm-up then cosine decay to a tenth; returns (step, mean loss of the last 50 steps)."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), fused=True)
    step, epoch, recent, log, started = 0, 0, [], [], time.monotonic()
    while step < options.steps:
        data = blocks(tokenizer, pairs, options.length, epoch, options.phase)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
        epoch += 1
        for rows in order.split(options.batch):
            if step == options.steps:
                break
            progress = step / options.steps
            scale = min(1.0, (step + 1) / 60) * (0.1 + 0.9 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item()))
            for group in optimizer.param_groups:
                group["lr"] = options.rate * scale
            batch = data[rows]
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if options.phase > 1 and step % 2:
                unlearn_loops(model, tokenizer, pairs, optimizer, step)
            recent.append(loss.item())
            step += 1
            if step % 50 == 0:
                log.append((step, round(sum(recent) / len(recent), 4)))
                print(
                    json.dumps({"step": step, "epoch": epoch, "loss": log[-1][1], "seconds": round(time.monotonic() - started)}),
                    flush=True,
                )
                recent.clear()
                model.save_pretrained(options.out)
    return log


def unlearn_loops(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[tuple[str, str]],
    optimizer: torch.optim.Optimizer,
    seed: int,
) -> None:
    """One step on the model's own greedy answers: the probability of each token that closes a repeated 4-gram goes down."""
    random_ = random.Random(seed)
    systems = random_.choices((schema.SYSTEM, OUTLINE_SYSTEM), k=16)
    chats = [[{"role": "system", "content": system}, {"role": "user", "content": random_.choice(pairs)[0]}] for system in systems]
    texts = [str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)) for chat in chats]
    prompt = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    width = prompt["input_ids"].shape[1]
    with torch.no_grad():
        generated: Any = model.generate(**prompt, max_new_tokens=120, do_sample=False)
    ids: torch.Tensor = generated
    structural = torch.tensor([bool(re.search(r"[\n.\d]", str(tokenizer.decode(i)))) for i in range(len(tokenizer))])
    loops = torch.tensor([[0] * width + closes_loop(row, structural) for row in ids[:, width:].tolist()], dtype=torch.bool)
    if not loops.any():
        return
    mask = torch.cat([prompt["attention_mask"], torch.ones_like(ids[:, width:])], 1)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    chosen = loops[:, 1:]
    probability = logits[chosen].softmax(-1).gather(1, ids[:, 1:][chosen].unsqueeze(1))
    loss = -torch.log1p(-probability.clamp(max=0.999)).mean() * 0.5
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def closes_loop(ids: list[int], structural: torch.Tensor) -> list[int]:
    """1 for each token that ends a 4-gram already written; numbering and line breaks may repeat."""
    seen: set[tuple[int, ...]] = set()
    marks = [0] * len(ids)
    for end in range(4, len(ids) + 1):
        gram = tuple(ids[end - 4 : end])
        if not any(structural[i] for i in gram):
            marks[end - 1] = int(gram in seen)
            seen.add(gram)
    return marks


def held_out(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], length: int, phase: int
) -> float:
    with torch.no_grad():
        batches = blocks(tokenizer, pairs, length, 0, phase).split(16)
        return float(sum(model(input_ids=b, labels=b).loss.item() * len(b) for b in batches) / sum(len(b) for b in batches))


if __name__ == "__main__":
    main()
