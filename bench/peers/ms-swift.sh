#!/usr/bin/env bash
# ms-swift in an environment of its own: .peers/ms-swift, with the transformers, PEFT and TRL it pins. Torch goes first, as in the
# Makefile, so that no later build brings CUDA packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m venv .peers/ms-swift
.peers/ms-swift/bin/pip install -q torch==2.13.0
.peers/ms-swift/bin/pip install -q torch==2.13.0 ms-swift==4.6.0
