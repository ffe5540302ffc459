"""Evaluation: base and tuned on the same work, with statistics."""
