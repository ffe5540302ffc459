#!/usr/bin/env bash
# Hugging Face datasets and datasketch in an environment of their own: .peers/datasets.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m venv .peers/datasets
.peers/datasets/bin/pip install -q datasets==5.2.0 datasketch==2.0.0
