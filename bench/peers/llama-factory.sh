#!/usr/bin/env bash
# LLaMA-Factory in an environment of its own: .peers/llama-factory, with the transformers, PEFT and TRL it pins. Torch goes first, as
# in the Makefile. The torchvision and torchaudio wheels it asks for are CUDA builds, which do not load beside a CPU torch; both are
# taken out again, and bench/peers/llama_factory_train.py puts an empty torchaudio in their place (text training uses neither).
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m venv .peers/llama-factory
.peers/llama-factory/bin/pip install -q torch==2.13.0
.peers/llama-factory/bin/pip install -q torch==2.13.0 llamafactory==0.9.5
.peers/llama-factory/bin/pip uninstall -q -y torchvision torchaudio
