"""A web server in this process that serves one file the way servers do on bad days."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class Behaviour:
    """How one request is answered; by default as it should be.

    status: in place of the file; cut_after, stall_after: bytes of the body that come before; claims: the
    Content-Length; ranges: whether a Range is heeded; etag: of the content; kind: the Content-Type;
    part_from: where a part begins, it says; unasked_part: a part comes also when all was asked for.
    """

    status: int = 0
    location: str = ""
    body: bytes | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    claims: int | None = None
    ranges: bool = True
    etag: str = '"one"'
    kind: str = "application/octet-stream"
    encoding: str = ""
    part_from: int | None = None
    unasked_part: bool = False


@dataclass
class Server:
    """Answers request i as `days[i]` says, all later ones like the last; `asked` holds their headers."""

    content: bytes
    days: list[Behaviour] = field(default_factory=lambda: [Behaviour()])
    asked: list[dict[str, str]] = field(default_factory=list)
    base: str = ""
    # ends what stalls
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Of the file."""
        return f"{self.base}/file.bin"


@contextlib.contextmanager
def serving(content: bytes, *days: Behaviour) -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server(content, list(days) or [Behaviour()])
    handler = type("Handler", (_Handler,), {"served": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.base = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Server

    def do_GET(self) -> None:
        server = self.served
        day = server.days[min(len(server.asked), len(server.days) - 1)]
        server.asked.append(dict(self.headers))
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            if day.status:
                self._answer_status(day)
            else:
                self._answer_file(server, day)

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""

    def _answer_status(self, day: Behaviour) -> None:
        self.send_response(day.status)
        if day.location:
            self.send_header("Location", day.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer_file(self, server: Server, day: Behaviour) -> None:
        content = server.content if day.body is None else day.body
        start = self._start(day)
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        part = bool(start) or day.unasked_part
        self.send_response(206 if part else 200)
        if part:
            told = start if day.part_from is None else day.part_from
            self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", day.kind)
        if day.etag:
            self.send_header("ETag", day.etag)
        if day.encoding:
            self.send_header("Content-Encoding", day.encoding)
        if day.claims != -1:
            self.send_header(
                "Content-Length", str(len(content) - start if day.claims is None else day.claims)
            )
        self.end_headers()
        stop = next((at for at in (day.cut_after, day.stall_after) if at is not None), len(content))
        self.wfile.write(content[start : start + stop])
        if day.stall_after is not None:
            self.wfile.flush()
            server.over.wait(60)

    def _start(self, day: Behaviour) -> int:
        asked = self.headers.get("Range", "")
        condition = self.headers.get("If-Range", day.etag)
        if not day.ranges or not asked or condition != day.etag:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))
