"""A hub of models on this machine, with the few answers that its client asks for a download."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

__all__ = ["LocalHub"]

_COMMIT = "0123456789" * 4


class LocalHub:
    """Serves the files of `folder` as the model `name`; `fetched` are those that were asked for."""

    def __init__(self, name: str, folder: Path) -> None:
        self.fetched: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(name, folder, self.fetched))
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(name: str, folder: Path, fetched: set[str]) -> type[BaseHTTPRequestHandler]:
    files = sorted(folder.iterdir())
    info = {
        "id": name,
        "sha": _COMMIT,
        "siblings": [{"rfilename": file.name} for file in files],
    }
    tree = [
        {"type": "file", "oid": "0" * 40, "size": file.stat().st_size, "path": file.name}
        for file in files
    ]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            data = self._find(path)
            if data is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", _COMMIT)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def _find(self, path: str) -> bytes | None:
            if path.startswith(f"/api/models/{name}/tree/"):
                return json.dumps(tree).encode()
            if path.startswith(f"/api/models/{name}"):
                return json.dumps(info).encode()
            if not path.startswith(f"/{name}/resolve/"):
                return None
            file = folder / path.rpartition("/")[2]
            fetched.add(file.name)
            return file.read_bytes()

    return Handler
