"""Xinglin: turns a Qwen chat model into a Chinese medical assistant that answers in three sections."""

__version__ = "0.1.0"
