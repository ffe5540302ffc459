"""Tune: rows, model, trainer, checkpoints and log of the train stage."""
