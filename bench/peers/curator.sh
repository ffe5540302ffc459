#!/usr/bin/env bash
# bespokelabs-curator in an environment of its own: .peers/curator.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m venv .peers/curator
.peers/curator/bin/pip install -q bespokelabs-curator==0.1.31
