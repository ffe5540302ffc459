"""What tests share: the folder of real corpora, present in development and CI only."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the repository; tests that read real corpora skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        assert "CI" not in os.environ, f"CI needs {folder.name}/ beside the repository"
        pytest.skip("needs the folder shared/ with real corpora beside the repository")
    return folder
