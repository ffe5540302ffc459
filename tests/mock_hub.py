"""A Hugging Face hub on this machine: one model or data set, the files of a folder."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Hub(BaseHTTPRequestHandler):
    """The three requests huggingface_hub makes of a hub, answered from a folder: the model our/model, the data set our/exam."""

    def __init__(self, folder: Path, *arguments) -> None:
        self.folder = folder
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        path = path.replace("/api/datasets/our/exam", "/api/models/our/model").replace("/datasets/our/exam", "/our/model")
        files = sorted(file.name for file in self.folder.iterdir())
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/our/model/revision/"):
            self.reply(
                json.dumps({"id": "our/model", "sha": "a" * 40, "siblings": [{"rfilename": file} for file in files]}).encode()
            )
        elif path.startswith("/api/models/our/model/tree/"):
            entries = [{"type": "file", "path": f, "size": (self.folder / f).stat().st_size, "oid": "b" * 40} for f in files]
            self.reply(json.dumps(entries).encode())
        elif path.startswith("/our/model/resolve/") and name in files:
            self.reply((self.folder / name).read_bytes(), name)
        else:
            self.send_error(404)

    def reply(self, body: bytes, name: str = "json") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass
