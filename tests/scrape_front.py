"""Stands before several servers as a Kubernetes Service would: each request goes to one of those that answer."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE_SECONDS = 10.0


class Front:
    """A fixed address; `targets` may change at any time. It takes the next one for each request, and the others when
    that does not answer; with none it says 502.
    """

    def __init__(self, address: str, *targets: str) -> None:
        self.address = address
        self.targets = list(targets)
        self.answered_by: list[str] = []  # for each answer

    def get(self, path: str) -> bytes | None:
        """A page of one of the targets."""
        targets, first = list(self.targets), len(self.answered_by)
        for place in range(len(targets)):
            target = targets[(first + place) % len(targets)]
            try:
                with urllib.request.urlopen(f"http://{target}{path}", timeout=PATIENCE_SECONDS) as response:
                    page: bytes = response.read()
            except OSError:
                continue
            self.answered_by.append(target)
            return page
        return None


@contextmanager
def front(*targets: str) -> Iterator[Front]:
    """One that listens until the end of the block."""

    class Handler(BaseHTTPRequestHandler):  # HTTP/1.0: a connection for each request, so that each may go elsewhere
        def do_GET(self) -> None:
            page = found.get(self.path)
            with suppress(ConnectionError):  # who asked has no patience left
                self.send_response(502 if page is None else 200)
                self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(page or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Front(f"127.0.0.1:{server.server_address[1]}", *targets)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
