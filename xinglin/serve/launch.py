"""``xinglin serve``: binds the port, loads the model behind the open page, and drains when it is told to stop.

In: a recipe. Out: a server that runs until Ctrl-C or SIGTERM, or one line that says why it cannot.
"""

import errno
import os
import signal
import socket
import sys
import threading
import webbrowser
from pathlib import Path

import uvicorn

from xinglin import schema
from xinglin.config import Recipe
from xinglin.serve.answering import Server
from xinglin.serve.api import create_app
from xinglin.serve.backend import Backend, Local
from xinglin.serve.upstream import Upstream

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
ANY = {"0.0.0.0", "::"}  # all addresses of this machine; none that a browser could open
DRAIN = 30  # seconds that answers in progress get after SIGTERM
IDLE = 75  # seconds a connection may rest: longer than proxies and clients keep theirs, so that they close first


def adapter_of(recipe: Recipe) -> Path | None:
    """The run's adapter, once `xinglin train` has written it."""
    folder = recipe.folder / "4-train" / "adapter"
    return folder if any((folder / name).is_file() for name in ("adapter_config.json", "config.json")) else None


def serve(recipe: Recipe, browse: bool = False) -> None:
    """Serve until stopped; ``browse`` opens the page where a browser can be seen.

    Raises ``ValueError`` for a port in use, a host without a key, or a model that does not load.
    """
    key = os.environ.get("XINGLIN_API_KEY", "")
    host, port = recipe.serve.host, recipe.serve.port
    if host not in LOOPBACK and not key:
        raise ValueError(f"serve.host={host}: other machines reach it only with a key; set XINGLIN_API_KEY, or leave 127.0.0.1")
    listener = bind(host, port)
    settings = recipe.serve
    server = Server(
        recipe.name,
        recipe.runs,
        key=key,
        database=settings.database,
        demo=recipe.model == "demo",
        structure=settings.structure,
    )
    runner = uvicorn.Server(
        uvicorn.Config(
            create_app(server), log_level="warning", timeout_graceful_shutdown=DRAIN, timeout_keep_alive=IDLE, server_header=False
        )
    )
    failures: list[Exception] = []
    threading.Thread(target=_load, args=(recipe, server, runner, failures), daemon=True).start()
    port = listener.getsockname()[1]
    address = f"http://{shown(host)}:{port}"
    say(f"{address}  (Ctrl-C stops it)" + (f"; from other machines: http://{socket.gethostname()}:{port}" if host in ANY else ""))
    if browse and (sys.platform in {"darwin", "win32"} or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ):
        webbrowser.open(address)
    # uvicorn raises the signal again after draining; a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    runner.run(sockets=[listener])
    if failures:
        raise failures[0]


def shown(host: str) -> str:
    """The host as a browser on this machine opens it."""
    if host in LOOPBACK | ANY:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"serve.port={port} is in use; stop what uses it, or add serve.port={port + 1}") from None
        raise ValueError(f"serve.host={host} serve.port={port}: {error.strerror}; use serve.host=127.0.0.1") from None
    return listener


def _load(recipe: Recipe, server: Server, runner: uvicorn.Server, failures: list[Exception]) -> None:
    """Load the model while the page is open already; a failure ends the server and is raised in its thread."""
    try:
        server.ready(backend(recipe))
    except Exception as error:
        failures.append(error)
        runner.should_exit = True


def backend(recipe: Recipe) -> Backend:
    if recipe.serve.upstream:
        say(f"answers come from {recipe.serve.upstream}")
        return upstream(recipe)
    adapter = adapter_of(recipe)
    if adapter is None:
        say(f"no adapter in {recipe.folder / '4-train'} yet: serving the base model alone (`xinglin train` makes one)")
    from xinglin.engine import Engine  # torch, only once the port is bound

    engine = Engine.load(recipe.base, adapter, recipe.serve.quantization, recipe.hub)
    for _ in engine.stream(schema.messages("你好"), max_new_tokens=1):
        pass  # the first answer pays for warming up, and shows whether this model can be served
    say(f"ready: {engine.name}" + (f" with {adapter}" if adapter else ""))
    return Local(engine, recipe.name)


def upstream(recipe: Recipe) -> Upstream:
    return Upstream(recipe.serve.upstream, recipe.name, os.environ.get("XINGLIN_UPSTREAM_KEY", ""))


def say(text: str) -> None:
    """A line on stderr, in one piece: the model is loaded by a thread that has something to say as well."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
