"""The engine: loads a base model with or without an adapter, turns messages into token ids, and generates text.

In: messages of ``schema.messages``. Out: text, piece by piece (``Engine.stream``, many at once, see ``batching``) or as a fixed
batch (``Engine.complete``), and the loss of given answers. It is the only module that loads weights; all generation starts here.
"""

import contextlib
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from xinglin import hub, processes, schema
from xinglin.batching import Batcher, Job
from xinglin.generation import Post, Reply, Settings, Stream
from xinglin.schema import Message
from xinglin.structure import Codec, Free, Grammar, Guide, Sections, Written, vocabulary

IGNORED = -100
FINGERPRINT = "xinglin.json"


# ---------------------------------------------------------------- messages to ids


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
    """Token ids of a chat. Equal to ``apply_chat_template`` on stripped text, but contents never yield a control token."""
    return [token for ids, _ in _pieces(tokenizer, messages, add_generation_prompt) for token in ids]


def encode_row(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Ids and labels of a training row: every assistant turn and its end token is supervised, all else is ``IGNORED``."""
    ids: list[int] = []
    labels: list[int] = []
    for position, (piece, turn) in enumerate(pieces := _pieces(tokenizer, messages, False)):
        supervised = turn is not None and messages[turn]["role"] == "assistant"
        ids += piece
        labels += piece if supervised else [IGNORED] * len(piece)
        if position and not supervised and _is_answer(pieces[position - 1][1], messages):
            assert piece[0] == tokenizer.eos_token_id, f"the chat template ends an answer with {piece[0]}, not with the end token"
            labels[-len(piece)] = piece[0]
    return ids, labels


def _is_answer(turn: int | None, messages: Sequence[Message]) -> bool:
    return turn is not None and messages[turn]["role"] == "assistant"


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> list[tuple[list[int], int | None]]:
    """The rendered template cut at the contents: (ids, index of the message or None for the template's own text)."""
    marked = [{**message, "content": f"\ue000{index}\ue001"} for index, message in enumerate(messages)]
    rendered = str(tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=add_generation_prompt))
    pieces: list[tuple[list[int], int | None]] = []
    for position, part in enumerate(re.split("\ue000(\\d+)\ue001", rendered)):
        if position % 2:
            pieces.append((encode_text(tokenizer, messages[int(part)]["content"]), int(part)))
        elif part:
            pieces.append((tokenizer.encode(part, add_special_tokens=False), None))
    return pieces


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of text in which the spelling of a control token is text: it is cut after its first character."""
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    cut = re.sub("|".join(re.escape(token) for token in added), lambda match: f"{match[0][0]}\ue002{match[0][1:]}", text)
    return [token for part in cut.split("\ue002") for token in tokenizer.encode(part, add_special_tokens=False)]


def prompt_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    return schema.fingerprint(str(tokenizer.chat_template), sorted(map(str, tokenizer.all_special_tokens)))


# ---------------------------------------------------------------- loading


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises ``ValueError`` where it has no chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no tokenizer that loads ({_first_line(error)})") from None
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: the tokenizer has no chat template; use the Instruct variant of the model")
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def load_base(folder: Path, quantization: str = "none") -> PreTrainedModel:
    """The base model of a local folder: bf16 (fp16 on older cards) on a GPU, fp32 on a CPU, or 4/8-bit.

    Weights that are to be divided over processes are read into main memory: one card need not hold them.
    """
    dtype = compute_dtype()
    if not sys.stderr.isatty():
        disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if quantization != "none":
        options["quantization_config"] = _quantized(quantization, dtype)
    if (torch.cuda.is_available() and not processes.divided()) or quantization != "none":
        options["device_map"] = {"": _device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: the model does not load ({_first_line(error)})") from None
    assert isinstance(model, PreTrainedModel)
    return model


def _device() -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def compute_dtype() -> torch.dtype:
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _quantized(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    # On a CPU without bf16 units a bf16 compute type is 15 times slower than fp32.
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def load_adapter(model: PreTrainedModel, adapter: Path, tokenizer: PreTrainedTokenizerBase, quantization: str = "none") -> Any:
    """Put an adapter on a base model, or a wholly tuned model beside it.

    Raises ``ValueError`` where it is no adapter, of another base, or of another prompt.
    """
    from peft import PeftModel

    hub.tuned_files(adapter)
    _compare_fingerprint(adapter, tokenizer)
    if (adapter / "config.json").is_file():
        return Whole(model, load_base(adapter, quantization))
    try:
        tuned = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{adapter}: not an adapter of this base model ({_first_line(error)})") from None
    return tuned


class Whole:
    """A model tuned in all its weights and its base, both in memory, as if one were the other with an adapter."""

    def __init__(self, base: PreTrainedModel, tuned: PreTrainedModel) -> None:
        self.base: Any = base.eval()
        self.tuned: Any = tuned.eval()
        self.active = self.tuned

    def eval(self) -> "Whole":
        return self

    def get_base_model(self) -> "Whole":
        return self

    def merge_and_unload(self) -> Any:
        return self.tuned

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.active = self.base
        try:
            yield
        finally:
            self.active = self.tuned

    def generate(self, **arguments: Any) -> Any:
        return self.active.generate(**arguments)

    @property
    def model(self) -> Any:
        return self.active.model

    @property
    def lm_head(self) -> Any:
        return self.active.lm_head

    @property
    def config(self) -> Any:
        return self.active.config

    @property
    def device(self) -> torch.device:
        device: torch.device = self.active.device
        return device


def _compare_fingerprint(adapter: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = adapter / FINGERPRINT
    if not path.is_file():
        warnings.warn(f"{adapter} has no {FINGERPRINT}: its prompt cannot be compared with this version's", stacklevel=2)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    current = prompt_fingerprint(tokenizer)
    if stored != current:
        raise ValueError(
            f"{adapter}: tuned with prompt {stored}, this version asks with {current}; tune again, or use that version"
        )


# ---------------------------------------------------------------- generating


class Engine:
    """One base model in memory, with at most one adapter that can be switched off per request."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, name: str, adapter: Path | None = None) -> None:
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.adapter = adapter
        self.causal: Any = model.get_base_model() if adapter else model
        self.fingerprint = prompt_fingerprint(tokenizer)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model: str, adapter: Path | None = None, quantization: str = "none", source: str = "hf") -> "Engine":
        """Load a folder or a hub name. Raises ``ValueError`` in one line for whatever the user can mend."""
        folder = hub.find_model(model, source)
        tokenizer = load_tokenizer(folder)
        base = load_base(folder, quantization)
        loaded = load_adapter(base, adapter, tokenizer, quantization) if adapter else base
        return cls(loaded, tokenizer, folder.name if Path(model).is_dir() else model, adapter)

    @property
    def context(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return int(self.model.config.max_position_embeddings)

    def stream(self, messages: Sequence[Message], **settings: Any) -> Stream:
        """Generate one answer with the ``Settings`` named. Pieces never end inside a character nor hold a stop string.

        Raises ``ValueError`` where the prompt leaves no room for an answer.
        """
        return Stream(self.prepare, messages, Settings(**settings))

    def prepare(self, messages: Sequence[Message], settings: Settings, post: Post) -> Job:
        """An answer, to be started beside those that are being written.

        Raises ``ValueError`` as ``stream`` does, and ``SchemaError`` for a JSON schema that cannot be kept.
        """
        ids = encode(self.tokenizer, messages)
        settings = replace(
            settings,
            tuned=settings.tuned and self.adapter is not None,
            max_new_tokens=self._room([len(ids)], settings.max_new_tokens),
        )
        guide, written = self._guide(settings), Written(self._codec)
        return Job(ids, settings, guide, written, post, self.model.device, self._batcher.submit)

    def _guide(self, settings: Settings) -> Guide:
        if settings.json_schema:
            return Grammar(self._vocabulary, settings.json_schema)
        return Sections(self._codec, settings.max_new_tokens) if settings.sections else Free()

    @cached_property
    def _codec(self) -> Codec:
        return Codec(self.tokenizer)

    @cached_property
    def _vocabulary(self) -> Any:
        return vocabulary(self.tokenizer, self.model.config.vocab_size)

    @cached_property
    def _batcher(self) -> Batcher:
        others = set(self.model.config.to_dict().get("layer_types") or ()) - {"full_attention"}
        if others:
            raise ValueError(
                f"{self.name}: {', '.join(others)} layers are not served here; put vLLM behind it with serve.upstream"
            )
        return Batcher(self.causal, (True, False) if self.adapter else (False,), self._alone)

    @contextlib.contextmanager
    def _alone(self, tuned: bool) -> Iterator[None]:
        with self._lock, self._switched(tuned):
            yield

    def complete(
        self,
        batch: Sequence[Sequence[Message]],
        *,
        tuned: bool = True,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Reply]:
        """Answers to a batch of chats, left-padded, greedy unless ``temperature`` is set; rows come back in order."""
        prompts = [encode(self.tokenizer, messages) for messages in batch]
        lengths = [len(ids) for ids in prompts]
        width, pad = max(lengths), self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=self.model.device)
        config = self._generation(self._room(lengths, max_new_tokens), temperature, 1.0)
        output = self._generate(ids, mask, config, tuned, seed)[:, width:].tolist()
        return [self._reply(row, n) for row, n in zip(output, lengths, strict=True)]

    def losses(self, batch: Sequence[Sequence[Message]], *, tuned: bool = True) -> list[tuple[float, int]]:
        """(summed negative log-likelihood in nats, tokens) of the last assistant turn of each chat, end token included."""
        rows = [encode_row(self.tokenizer, messages) for messages in batch]
        width = max(len(ids) for ids, _ in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows], device=self.model.device)
        labels = torch.tensor([_last_turn(row) + [IGNORED] * (width - len(row)) for _, row in rows], device=self.model.device)
        with self._lock, self._switched(tuned), torch.inference_mode():
            hidden, targets = supervised(self.causal, ids, mask, labels)
            each = cross_entropy(hidden.float(), targets, reduction="none")
        counts = (labels[:, 1:] != IGNORED).sum(1).tolist()
        return [(part.sum().item(), count) for part, count in zip(each.split(counts), counts, strict=True)]

    def first_tokens(
        self, batch: Sequence[Sequence[Message]], choices: Sequence[str], *, tuned: bool = True
    ) -> list[list[float]]:
        """Log-probability of each choice (one token each, such as an exam's letters) as the first token of the answer."""
        rows = [encode(self.tokenizer, messages) for messages in batch]
        wanted = [self.tokenizer.encode(choice, add_special_tokens=False) for choice in choices]
        assert all(len(ids) == 1 for ids in wanted), f"not one token each: {choices}"
        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.model.device)
        last = torch.tensor([len(row) - 1 for row in rows], device=self.model.device)
        with self._lock, self._switched(tuned), torch.inference_mode():
            hidden = self.causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            logits = self.causal.lm_head(hidden[torch.arange(len(rows), device=last.device), last])
        return logits.float().log_softmax(-1)[:, [ids[0] for ids in wanted]].tolist()  # type: ignore[no-any-return]

    def _generate(
        self, ids: torch.Tensor, mask: torch.Tensor, config: GenerationConfig, tuned: bool, seed: int | None
    ) -> torch.Tensor:
        with self._lock, self._switched(tuned), torch.inference_mode():
            if seed is not None:
                torch.manual_seed(seed)
            output = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        assert isinstance(output, torch.Tensor)
        return output

    def _switched(self, tuned: bool) -> contextlib.AbstractContextManager[Any]:
        if tuned or self.adapter is None:
            return contextlib.nullcontext()
        switched: contextlib.AbstractContextManager[Any] = self.model.disable_adapter()
        return switched

    def _generation(self, max_new_tokens: int, temperature: float, top_p: float) -> GenerationConfig:
        """Our own settings: a model's shipped ones (Qwen's repetition penalty 1.05, top_k 20) would differ from side to side."""
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {"do_sample": False}
        )
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            **sampling,
        )

    def _room(self, lengths: Sequence[int], wanted: int) -> int:
        room = self.context - max(lengths)
        if room < 1:
            raise ValueError(
                f"the prompt has {max(lengths)} tokens, the model's context holds {self.context}: shorten question or history"
            )
        return min(wanted, room)

    def _reply(self, ids: list[int], prompt_tokens: int) -> Reply:
        end = self.tokenizer.eos_token_id
        kept = ids[: ids.index(end) + 1] if end in ids else ids
        return Reply(self._text(kept), "stop" if end in ids else "length", prompt_tokens, len(kept))

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def supervised(
    causal: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor, **arguments: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, vocabulary) and targets (n,) of the supervised positions only: the LM head is not run on the others.

    ``causal`` is the model without its PEFT wrapper (whose layers it holds all the same).
    """
    hidden = causal.model(input_ids=ids, attention_mask=mask, use_cache=False, **arguments).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != IGNORED
    return causal.lm_head(hidden[chosen]), targets[chosen]


def _last_turn(labels: list[int]) -> list[int]:
    """Labels with all but the last supervised stretch ignored."""
    end = max(i for i, label in enumerate(labels) if label != IGNORED)
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    return [label if start <= i <= end else IGNORED for i, label in enumerate(labels)]
