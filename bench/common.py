"""What the benches share: where results go and what is said of the machine."""

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def hardware() -> str:
    """Cores and memory, without naming the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()}-core {_processor()}, {memory:.0f} GiB, no GPU"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return "AMD EPYC" if "EPYC" in line else line.partition(":")[2].strip()
    return platform.machine()


def save(name: str, results: dict[str, Any]) -> None:
    """Write results/NAME.json with date and hardware."""
    RESULTS.mkdir(exist_ok=True)
    data = {"date": datetime.date.today().isoformat(), "hardware": hardware(), "python": platform.python_version(), **results}
    (RESULTS / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
