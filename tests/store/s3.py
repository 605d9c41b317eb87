"""An S3 server for tests: moto's, behind a proxy that drops connections and a listing that lags."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Proxy:
    """Forwards connections to a port; drops those that carry more than `allowance` bytes back, `drops` times."""

    def __init__(self, target: int) -> None:
        self.target, self.drops, self.allowance, self.dropped = target, 0, 300, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._pump, args=(client, upstream, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if back and self.drops > 0 and passed > self.allowance:
                    self.drops -= 1
                    self.dropped += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class LaggingListing:
    """WSGI middleware: a listing leaves out objects that are younger than `lag_s`; reading them works at once."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.application, self.lag_s, self.hidden = application, 0.0, 0
        self._written: dict[str, float] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] == "PUT":
            self._written[environ["PATH_INFO"].split("/", 2)[-1]] = time.monotonic()
        if environ["REQUEST_METHOD"] != "GET" or "list-type" not in environ.get("QUERY_STRING", "") or not self.lag_s:
            return self.application(environ, start_response)
        started: list[Any] = []
        body = b"".join(self.application(environ, lambda *arguments: started.extend(arguments)))
        body = re.sub(rb"<Contents>.*?</Contents>", self._shown, body, flags=re.DOTALL)
        headers = [(name, value) for name, value in started[1] if name.lower() != "content-length"]
        start_response(started[0], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _shown(self, entry: re.Match[bytes]) -> bytes:
        key = re.search(rb"<Key>(.*?)</Key>", entry[0])
        assert key is not None
        if time.monotonic() - self._written.get(key[1].decode(), 0.0) < self.lag_s:
            self.hidden += 1
            return b""
        return entry[0]


@contextlib.contextmanager
def served() -> Iterator[tuple[Proxy, LaggingListing]]:
    """The server, with the environment that leads s3fs to it; needs moto and s3fs."""
    import moto.server  # noqa: PLC0415 - may not be installed
    import s3fs  # noqa: PLC0415 - as above

    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    listing = LaggingListing(server._server.app)
    server._server.app = listing
    proxy = Proxy(port)
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    # fsspec keeps file systems by their arguments, and the address of an earlier server is none of them
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield proxy, listing
    finally:
        os.environ.clear()
        os.environ.update(before)
        proxy.listener.close()
        server.stop()
