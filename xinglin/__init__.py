"""Xinglin: turns a Qwen chat model into a Chinese medical assistant that answers in three sections."""

import logging
import warnings

__version__ = "0.1.0"

# On a CPU bitsandbytes says at every start that an optional kernel is not there, and at every 8-bit product that it casts.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# PEFT 0.21 asks transformers 5.23 for a property that is deprecated; nothing of ours does.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
