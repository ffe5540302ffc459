"""The sample data and the tiny built-in base model."""
