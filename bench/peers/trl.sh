#!/usr/bin/env bash
# TRL in an environment of its own: .peers/trl. Torch, transformers and PEFT are the project's, seen through a .pth file, so that
# both sides of bench/train.py run the same kernels; what TRL brings stays in its own folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
.venv/bin/python -m venv .peers/trl
own=$(.peers/trl/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$project" > "$own/project.pth"
.peers/trl/bin/pip install -q -c constraints.txt trl==1.16.0 datasets==5.2.0
