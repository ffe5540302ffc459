"""Xinglin: turns a Qwen chat model into a Chinese medical assistant that answers in three sections."""

import logging
import warnings

__version__ = "0.1.0"

# bitsandbytes says at every start on a CPU that an optional kernel of the hub is not there.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT 0.21 asks transformers 5.23 for a property that is deprecated; nothing of ours does.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
