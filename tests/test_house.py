"""The architecture as a test: imports point downwards, stages meet on disk only, few knobs, no probing."""

import ast
from pathlib import Path

import xinglin

ROOT = Path(xinglin.__file__).parent
# Each room may import those below it and its own. Stages: data.clean, data.rewrite, data.split, train, evaluate, export, serve.
LEVELS = [
    {"schema"},
    {"records", "config", "processes", "reading", "shapes", "streams", "generation"},
    {"engine", "batching", "structure", "llm", "hub", "safety", "card", "planner", "plots", "gguf", "fonts", "choice"},
    {"data", "train", "evaluate", "export", "serve", "doctor", "demo"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Modules of the package that ``path`` imports, dotted, without the package's own name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "xinglin":
            prefix = (node.module or "").removeprefix("xinglin").removeprefix(".")
            found |= {f"{prefix}.{alias.name}" if prefix else alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("xinglin.") for alias in node.names if alias.name.startswith("xinglin.")}
    return found - {"__version__"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def test_every_room_has_a_level():
    assert {room(path) for path in ROOT.rglob("*.py")} - {"__init__"} == set(LEVEL)


def test_imports_point_downwards():
    upward = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in ROOT.rglob("*.py")
        if room(path) != "__init__"
        for target in imports(path)
        if LEVEL[target.split(".")[0]] > LEVEL[room(path)]
    ]
    assert upward == []


def test_stages_do_not_import_each_other():
    stages = LEVELS[3]
    crossing = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in ROOT.rglob("*.py")
        for target in imports(path)
        if room(path) in stages and target.split(".")[0] in stages - {room(path)}
    ]
    assert crossing == []


def calls(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


def test_nothing_probes_for_attributes():
    assert [str(path) for path in ROOT.rglob("*.py") if {"getattr", "hasattr"} & set(calls(path))] == []


def test_nothing_that_runs_foreign_code_is_loaded():
    words = ("trust_remote_code=True", "pickle.load", "torch.load(", "verify=False", "innerHTML")
    sources = [path for pattern in ("*.py", "*.js", "*.html") for path in ROOT.rglob(pattern)]
    assert [f"{path.name}: {word}" for path in sources for word in words if word in path.read_text(encoding="utf-8")] == []
