"""An endpoint that speaks OpenAI's protocol and does what a test says."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PARIS = '{"latitude": 48.8566, "longitude": 2.3522}'


@dataclass
class Response:
    replies: list[str] | None = None
    status: int = 200
    body: bytes | None = None
    """In place of a chat completion."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: str | None = None
    """``reset``: the connection, before a byte; ``half``: amid the body."""


def error(status: int, message: str, headers: dict[str, str] | None = None, **fields: str) -> Response:
    body = json.dumps({"error": {"message": message} | fields}).encode()
    return Response(status=status, body=body, headers=headers or {})


def replied(body: dict, text: str = PARIS) -> Response:
    return Response([text] * body.get("n", 1))


Script = Callable[[dict, int], Response]
"""From a request's body, and its number from 0."""


@dataclass
class Endpoint:
    url: str
    asked: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    most_at_once: int = 0
    paid: list[tuple[str, int]] = field(default_factory=list)
    """What was delivered: prompt with picture, and replies."""


@contextlib.contextmanager
def endpoint(script: Script = lambda body, number: replied(body)) -> Iterator[Endpoint]:
    lock, under_way = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(found.asked)
                found.asked.append(body)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
                under_way[0] += 1
                found.most_at_once = max(found.most_at_once, under_way[0])
            try:
                self._respond(body, script(body, number))
            finally:
                with lock:
                    under_way[0] -= 1

        def _respond(self, asked: dict, response: Response) -> None:
            time.sleep(response.delay_s)
            if response.cut == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            body = response.body
            if body is None:
                choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in response.replies]
                usage = {"prompt_tokens": 300, "completion_tokens": 20 * len(choices)}
                body = json.dumps({"choices": choices, "usage": usage}).encode()
            self.send_response(response.status)
            for name, value in ({"Content-Type": "application/json"} | response.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body[: len(body) // 2] if response.cut == "half" else body)
                if response.status == 200 and response.body is None and not response.cut:
                    with lock:
                        found.paid.append((json.dumps(asked["messages"]), len(response.replies)))
            self.close_connection = response.cut == "half"

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
