"""The data stages: clean, rewrite, split."""
