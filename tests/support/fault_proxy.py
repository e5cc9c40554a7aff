"""An HTTP proxy in front of a real S3 server that injects one fault at a time."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
SKEWED = b"<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>...</Message></Error>"


@dataclass
class Request:
    """A request on which a fault decides."""

    method: str
    path: str
    headers: Any
    body: bytes


@dataclass
class FaultProxy:
    """Passes requests on unchanged, so that their signatures hold, but for those that a fault takes.

    A fault is called with the handler, the request, and a function that passes the request on and returns the real
    answer. It returns True when it has dealt with the request.
    """

    upstream: str
    fault: Callable[[BaseHTTPRequestHandler, Request, Callable[[], tuple[HTTPResponse, bytes]]], bool] | None = None
    seen: list[Request] = field(default_factory=list)

    def __enter__(self) -> FaultProxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, self.headers, body)
                proxy.seen.append(request)
                if proxy.fault is None or not proxy.fault(self, request, lambda: proxy.forward(request)):
                    answer(self, *proxy.forward(request))

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                """Ignore clients that hang up after a fault."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def forward(self, request: Request) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(urlsplit(self.upstream).netloc)
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content


def answer(handler: BaseHTTPRequestHandler, response: HTTPResponse, content: bytes) -> None:
    """Send a real answer on."""
    handler.send_response_only(response.status, response.reason)
    for name, value in response.getheaders():
        if name.lower() not in ("transfer-encoding", "connection"):
            handler.send_header(name, value)
    if response.getheader("Content-Length") is None:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def times(count: int, matches: Callable[[Request], bool], fault: Callable[..., None]) -> Callable[..., bool]:
    """Inject a fault into the first `count` requests that match."""
    lock = threading.Lock()
    left = [count]

    def inject(handler: BaseHTTPRequestHandler, request: Request, forward: Callable[..., Any]) -> bool:
        with lock:
            if not left[0] or not matches(request):
                return False
            left[0] -= 1
        fault(handler, request, forward)
        return True

    return inject


def status(code: int, content: bytes = b"") -> Callable[..., None]:
    """Answer with an HTTP status, without asking the server."""

    def fault(handler: BaseHTTPRequestHandler, _request: Request, _forward: object) -> None:
        handler.send_response_only(code)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    return fault


def reset(handler: BaseHTTPRequestHandler, _request: Request, _forward: object) -> None:
    """Reset the connection without an answer; the server is not asked."""
    linger_off = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_off)
    handler.connection.close()
    handler.close_connection = True


def lose_answer(handler: BaseHTTPRequestHandler, request: Request, forward: Callable[[], Any]) -> None:
    """Let the server do what is asked, and reset the connection instead of saying so."""
    forward()
    reset(handler, request, forward)


def hang(seconds: float) -> Callable[..., None]:
    """Accept the request and say nothing for longer than the client waits."""

    def fault(handler: BaseHTTPRequestHandler, _request: Request, _forward: object) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def truncate(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
    """Promise the whole body and send the half of it."""
    response, content = forward()
    handler.send_response_only(response.status, response.reason)
    for name, value in response.getheaders():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def stall(seconds: float) -> Callable[..., None]:
    """Send the half of the body, and then nothing for longer than the client waits."""

    def fault(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
        response, content = forward()
        handler.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def shorten(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
    """Send fewer bytes than were asked for, with a length that agrees: a store's or a cache's own fault."""
    response, content = forward()
    handler.send_response_only(response.status, response.reason)
    for name, value in response.getheaders():
        if name.lower() != "content-length":
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content) // 2))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def damage_request(proxy: FaultProxy) -> Callable[..., None]:
    """Change one byte of the body on its way to the server."""

    def fault(handler: BaseHTTPRequestHandler, request: Request, _forward: object) -> None:
        damaged = bytes([request.body[0] ^ 1]) + request.body[1:]
        answer(handler, *proxy.forward(Request(request.method, request.path, request.headers, damaged)))

    return fault


def damage(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
    """Change one byte of the answer's body."""
    response, content = forward()
    answer(handler, response, bytes([content[0] ^ 1]) + content[1:])


def damage_anywhere(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
    """Change one byte of the answer's body, each time another one, as a bad line does."""
    response, content = forward()
    at = random.randrange(len(content))
    answer(handler, response, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def without_header(dropped: str) -> Callable[..., None]:
    """Leave a header out of the answer."""

    def fault(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
        response, content = forward()
        del response.headers[dropped]
        answer(handler, response, content)

    return fault


def with_headers(added: Mapping[str, str]) -> Callable[..., None]:
    """Add headers to the answer."""

    def fault(handler: BaseHTTPRequestHandler, _request: Request, forward: Callable[[], Any]) -> None:
        response, content = forward()
        for name, value in added.items():
            response.headers[name] = value
        answer(handler, response, content)

    return fault
