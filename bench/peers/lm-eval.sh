#!/usr/bin/env bash
# lm-evaluation-harness in an environment of its own: .peers/lm-eval. Torch and transformers are the project's, seen through a
# .pth file, so that both sides of bench/exams.py run the same kernels; everything lm-eval brings stays in its own folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
.venv/bin/python -m venv .peers/lm-eval
own=$(.peers/lm-eval/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$project" > "$own/project.pth"
.peers/lm-eval/bin/pip install -q lm-eval==0.4.13
