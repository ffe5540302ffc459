"""The page, the OpenAI-compatible API and the terminal chat."""
