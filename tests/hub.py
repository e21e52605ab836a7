"""A stand-in of a model hub: its lists, its files behind a redirect, ranges, and connections that are cut."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves the files of a folder as the repository `owner/name`. What is public here may be set while it runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.endpoint = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}/storage"  # another host, as a hub's files are at
        self.cuts: dict[str, list[int]] = {}  # by file: after how many bytes each of the next answers ends
        self.damaged: set[str] = set()
        self.requests: list[tuple[str, str]] = []  # a fetched file and the range that was asked for
        self.is_gated = False
        self.cut_happened = threading.Event()
        self.stalls = False  # a cut answer is left open instead of ended
        self.closing = threading.Event()

    def listing(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}
            for name, content in self.files.items()
        ]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.is_gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/owner/name/tree/"):
            self._send(200, json.dumps(self.hub.listing()).encode())
        elif path in ("/api/models/owner/name", *(f"/api/models/owner/name/revision/{r}" for r in ("main", COMMIT))):
            self._send(200, json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith("/api/models/owner/name/revision/"):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
            self._redirect(path.partition(f"/{COMMIT}/")[2])
        elif path.startswith("/storage/"):
            self._send_file(path.removeprefix("/storage/"))
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _redirect(self, name: str) -> None:
        content = self.hub.files[name]
        headers = {
            "Location": f"{self.hub.storage}/{name}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
        }
        self._send(302, b"", headers)

    def _send_file(self, name: str) -> None:
        content = self.hub.files[name]
        asked = self.headers.get("Range", "")
        if self.command == "GET":
            self.hub.requests.append((name, asked))
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        body = content[start:]
        if name in self.hub.damaged:
            body = bytes(len(body))
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        cuts = self.hub.cuts.get(name, [])
        self._send(206 if asked else 200, body, headers, cut=cuts.pop(0) if cuts and self.command == "GET" else None)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.hub.cut_happened.set()
            if self.hub.stalls:
                self.hub.closing.wait(120)
            self.close_connection = True


@contextmanager
def running_hub(folder: Path) -> Iterator[Hub]:
    """Listens on a free port of the loopback."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        handler.hub = hub = Hub(folder, server.server_port)
        thread = threading.Thread(target=server.serve_forever, name="hub", daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            thread.join()
