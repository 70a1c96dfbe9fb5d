"""An S3 server on this machine that is slow, and fails, as much as it is told to."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *arguments: object) -> None: ...


@dataclass
class Weather:
    """What may happen to a GET of an object, by share of them, and what is out of order altogether."""

    latency_s: float = 0.0
    throttled: float = 0.0
    reset: float = 0.0
    stalled: float = 0.0
    stall_s: float = 10.0
    deleted: float = 0.0
    """Of the objects: gone from the first look on."""
    expired: bool = False
    writes_refused: bool = False
    gone: set[str] = field(default_factory=set)
    happened: dict[str, int] = field(default_factory=dict)
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def now(self, request: str, path: str) -> str | None:
        """What happens to this one."""
        if self.writes_refused and request in ("PUT", "POST"):
            return "refused"
        if request != "GET" or path.count("/") < 2:
            return None
        if self.expired:
            return "expired"
        if path in self.gone or self.draw.random() < self.deleted:
            self.gone.add(path)
            return "deleted"
        at = self.draw.random()
        for what in ("throttled", "reset", "stalled"):
            if at < getattr(self, what):
                return what
            at -= getattr(self, what)
        return None


class _Server:
    def __init__(self, weather: Weather, bucket: str) -> None:
        self._weather, self._bucket, self._lock = weather, f"/{bucket}/", threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        request, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            read = path.startswith(self._bucket) or request in ("PUT", "POST")
            what = self._weather.now(request, path) if read else None
            if what:
                self._weather.happened[what] = self._weather.happened.get(what, 0) + 1
        if request == "GET" and self._weather.latency_s:
            time.sleep(self._weather.latency_s)
        if what in ("throttled", "refused"):
            return self._error(start_response, "503 Slow Down", "SlowDown")
        if what == "expired":
            return self._error(start_response, "400 Bad Request", "ExpiredToken")
        if what == "deleted":
            return self._error(start_response, "404 Not Found", "NoSuchKey")
        if what == "reset":  # and not a polite end
            connection = environ["werkzeug.socket"]  # which others hold too: closing it here would not end it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        if what == "stalled":
            time.sleep(self._weather.stall_s)
        return self._app(environ, start_response)

    @staticmethod
    def _error(start_response: Callable, status: str, code: str) -> Iterable[bytes]:
        body = _ERROR.format(code, status).encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def faulty_s3(weather: Weather, bucket: str) -> Iterator[str]:
    """Its address. The weather is that of one bucket's objects; writes are refused to all of them."""
    server = make_server("127.0.0.1", 0, _Server(weather, bucket), threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
