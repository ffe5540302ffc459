#!/usr/bin/env bash
# data-juicer in an environment of its own: .peers/data-juicer. It starts only with aiohttp installed beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m venv .peers/data-juicer
.peers/data-juicer/bin/pip install -q py-data-juicer==1.6.1 aiohttp
