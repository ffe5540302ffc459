#!/usr/bin/env bash
# What bench/train_gpu.py compares with, in an environment of its own: .peers/gpu. Torch, transformers and PEFT are the project's,
# seen through a .pth file; TRL and torchao stay in its own folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
.venv/bin/python -m venv .peers/gpu
own=$(.peers/gpu/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$project" > "$own/project.pth"
.peers/gpu/bin/pip install -q -c constraints.txt trl==1.16.0 datasets==5.2.0
.peers/gpu/bin/pip install -q --no-deps torchao==0.18.0
