"""HTTP/1 heads and chunked bodies, by a positive grammar: what RFC 9110 and 9112 do not clearly allow is refused, so
that no two parsers can disagree about a message that passed here."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

Data = bytes | memoryview

# RFC 9110 5.6.2, 5.5. Possessive quantifiers keep every match linear in the input.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/(\d)\.(\d)")
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)")
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+;=]++|\[[0-9A-Fa-f:.]++\])(?::\d{0,5})?")
_TARGET = re.compile(rb"https?://([^/?#]*+)([/?].*+)?", re.IGNORECASE | re.DOTALL)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_TRAILER = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n")

MAX_FIELDS = 128
LINES_REMEMBERED = 8192
LINE_BYTES_REMEMBERED = 256
MAX_CHUNK_LINE = 4096
MAX_TRAILER_BYTES = 16 * 1024
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110 9.2.2."""

NONE, LENGTH, CHUNKED, CLOSE = range(4)
"""How a body ends: there is none, after so many bytes, by its last chunk, with the connection."""

HOST, CONTENT_LENGTH, TRANSFER, CONNECTION, UPGRADE, EXPECT, HOP, FORWARDED, REQUEST_ID, ACCEPT, AUTHORIZATION = range(
    1, 12
)
_SPECIAL = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP,
    b"te": HOP,
    b"trailer": HOP,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"forwarded": FORWARDED,
    b"x-country": FORWARDED,
    b"x-request-id": REQUEST_ID,
    b"accept": ACCEPT,
    b"authorization": AUTHORIZATION,
}


class Refused(Exception):
    """A message that must not be passed on. ``status`` and ``words`` answer a client; the connection ends."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Line(NamedTuple):
    """One field line, understood: what kind of field it is (0: none that matters here), how it is passed on, its value
    without the space around it."""

    kind: int
    field: bytes
    value: bytes


_once: set[int] = set()
_lines: dict[bytes, Line] = {}
"""Clients repeat nearly all of their lines, and what a line means depends on nothing else."""


def _line(line: bytes) -> Line | None:
    """None if it is no field."""
    match = _FIELD.fullmatch(line)
    if match is None:
        return None
    name, value = match.groups()
    value = value.rstrip(b" \t")
    known = Line(_SPECIAL.get(name.lower(), 0), b"%b: %b\r\n" % (name, value), value)
    mark = hash(line)
    if mark not in _once:
        # only what comes again is worth its memory
        if len(_once) >= LINES_REMEMBERED:
            _once.clear()
        _once.add(mark)
    elif len(line) <= LINE_BYTES_REMEMBERED:
        if len(_lines) >= LINES_REMEMBERED:
            _lines.clear()
        _lines[line] = known
    return known


class Request:
    """One request's head, taken apart. ``fields`` are those that go on unchanged, as bytes. What most requests do not
    have is the class's own."""

    method: bytes
    target: bytes
    """In origin form: path and query."""
    path: bytes
    http11: bool
    host: bytes = b""
    """As the client sent it; may be empty with HTTP/1.0."""
    body = 0
    length = 0
    fields: list[bytes]
    forwarded: list[tuple[bytes, bytes]] | None = None
    """What it says about hops before; to be believed from trusted proxies only."""
    keep_alive: bool
    accept = b""
    authorization = b""
    expect = b""
    request_id = b""
    upgrade = b""


NOTHING = Request()
"""What stands for a request that could not be read."""
NOTHING.method = NOTHING.target = NOTHING.path = b""
NOTHING.fields = []
NOTHING.http11 = NOTHING.keep_alive = False


def find_head(buffer: bytes | bytearray, limit: int) -> int:
    """Where the head in ``buffer`` ends, or -1 if more must come. ``Refused`` as soon as it cannot become one."""
    end = buffer.find(b"\r\n\r\n", 0, limit + 4)
    if end >= 0:
        return end + 4
    if _BARE_LF.search(buffer):
        raise Refused(400, "a line ends without CR")
    if len(buffer) >= limit:
        raise Refused(431, f"the head is longer than {limit} bytes")
    if buffer and not 0x21 <= buffer[0] <= 0x7E:
        raise Refused(400, "this is not HTTP")
    return -1


def parse_request(head: bytes) -> Request:
    """``Refused`` with 400, 431, 501 or 505 and the reason."""
    lines = head[:-4].split(b"\r\n")
    match = _REQUEST.fullmatch(lines[0])
    if match is None:
        raise Refused(400, "the request's head is malformed")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(lines) > MAX_FIELDS + 1:
        raise Refused(431, f"there are more than {MAX_FIELDS} fields")
    request = Request()
    request.method = method
    http11 = request.http11 = minor == b"1"
    host: bytes | None = None
    length: bytes | None = None
    transfer: bytes | None = None
    tokens: tuple[bytes, ...] = ()
    forwarded: list[tuple[bytes, bytes]] | None = None
    fields: list[bytes] = []
    known = _lines.get
    del lines[0]
    for line in lines:
        found = known(line) or _line(line)
        if found is None:
            raise Refused(400, "the request's head is malformed")
        kind, field, value = found
        if kind == 0:
            fields.append(field)
            continue
        if kind == HOST:
            if host is not None:
                raise Refused(400, "there is more than one Host")
            host = value
        elif kind == ACCEPT:
            request.accept = value
            fields.append(field)
        elif kind == AUTHORIZATION:
            request.authorization = value
            fields.append(field)
        elif kind == CONNECTION:
            tokens += tuple(token.strip(b" \t").lower() for token in value.split(b","))
        elif kind == CONTENT_LENGTH:
            if length is not None:
                raise Refused(400, "there is more than one Content-Length")
            length = value
        elif kind == TRANSFER:
            if transfer is not None:
                raise Refused(400, "there is more than one Transfer-Encoding")
            transfer = value
        elif kind == REQUEST_ID:
            request.request_id = value
        elif kind == UPGRADE:
            request.upgrade = value
        elif kind == EXPECT:
            request.expect = value
        elif kind == FORWARDED:
            forwarded = forwarded or []
            forwarded.append((field.partition(b":")[0].lower(), value))
    if forwarded is not None:
        request.forwarded = forwarded
    request.keep_alive = http11 if not tokens else (b"close" not in tokens) if http11 else (b"keep-alive" in tokens)
    if length is not None or transfer is not None or method in _FRAMED_APART:
        _frame_request(request, length, transfer)
    if host is not None and target[0] == 0x2F:
        if not _good_host(host):
            raise Refused(400, "the Host is malformed")
        request.host = host
        request.target = target
        request.path = target.partition(b"?")[0] if b"?" in target else target
    else:
        _target(request, target, host)
    request.fields = _without(fields, tokens) if tokens else fields
    if request.expect and request.expect.lower() != b"100-continue":
        raise Refused(417, "only 100-continue can be expected")
    if request.upgrade and (b"upgrade" not in tokens or not http11):
        request.upgrade = b""
    return request


_FRAMED_APART = frozenset((b"CONNECT", b"TRACE"))


@lru_cache(maxsize=1024)
def _good_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _frame_request(request: Request, length: bytes | None, transfer: bytes | None) -> None:
    """RFC 9112 6.1 to 6.3, without any of its leniency."""
    if transfer is not None:
        if length is not None:
            raise Refused(400, "there are Content-Length and Transfer-Encoding")
        if not request.http11:
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        if transfer.lower() != b"chunked":
            raise Refused(400, "the only Transfer-Encoding accepted is chunked")
        request.body = CHUNKED
    elif length is not None:
        request.length = _content_length(length)
        request.body = LENGTH if request.length else NONE
    else:
        request.body = NONE
    if request.method == b"CONNECT":
        raise Refused(400, "CONNECT is not for here")
    if request.method == b"TRACE" and request.body != NONE:
        raise Refused(400, "a TRACE request has no body")


def _content_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise Refused(400, "the Content-Length is malformed")
    return int(value)


def _target(request: Request, target: bytes, host: bytes | None) -> None:
    if host is None:
        if request.http11:
            raise Refused(400, "there is no Host")
    elif not _good_host(host):
        raise Refused(400, "the Host is malformed")
    if target[0] != 0x2F:
        if target == b"*":
            if request.method != b"OPTIONS":
                raise Refused(400, "* is for OPTIONS only")
        else:
            absolute = _TARGET.fullmatch(target)
            if absolute is None:
                raise Refused(400, "the request's target is malformed")
            authority, rest = absolute.groups()
            if not _HOST.fullmatch(authority) or (host is not None and authority.lower() != host.lower()):
                raise Refused(400, "target and Host disagree")
            host = authority
            target = rest or b"/"
            if target[0] == 0x3F:
                target = b"/" + target
    request.host = host or b""
    request.target = target
    request.path = target.partition(b"?")[0] if b"?" in target else target


def _without(fields: list[bytes], tokens: tuple[bytes, ...]) -> list[bytes]:
    """The fields that `Connection` does not name (RFC 9110 7.6.1)."""
    named = {token for token in tokens if token not in (b"close", b"keep-alive", b"upgrade", b"")}
    if not named:
        return fields
    return [field for field in fields if field.partition(b":")[0].lower() not in named]


class Response:
    """One response's head. ``fields`` go on unchanged; the body's end is in ``body`` and ``length``."""

    __slots__ = ("body", "fields", "http11", "keep_alive", "length", "reason", "status", "upgrade")

    status: int
    reason: bytes
    http11: bool
    fields: list[bytes]
    body: int
    length: int
    keep_alive: bool
    upgrade: bytes


def parse_response(head: bytes, method: bytes) -> Response:
    """``Refused`` (502) for an answer that two readers could understand differently."""
    lines = head[:-4].split(b"\r\n")
    match = _RESPONSE.fullmatch(lines[0])
    if match is None:
        raise Refused(502, "the app's answer is malformed")
    if len(lines) > MAX_FIELDS + 1:
        raise Refused(502, f"the app's answer has more than {MAX_FIELDS} fields")
    minor, code, reason = match.groups()
    response = Response()
    status = response.status = int(code)
    response.reason = reason or b""
    http11 = response.http11 = minor == b"1"
    response.upgrade = b""
    length: bytes | None = None
    transfer: bytes | None = None
    tokens: tuple[bytes, ...] = ()
    fields: list[bytes] = []
    known = _lines.get
    del lines[0]
    for line in lines:
        found = known(line) or _line(line)
        if found is None:
            raise Refused(502, "the app's answer is malformed")
        kind, field, value = found
        if kind == 0 or kind in (HOST, FORWARDED, ACCEPT, EXPECT, AUTHORIZATION):
            fields.append(field)
        elif kind == CONTENT_LENGTH:
            if length is not None:
                raise Refused(502, "the app's answer has more than one Content-Length")
            length = value
        elif kind == TRANSFER:
            if transfer is not None:
                raise Refused(502, "the app's answer has more than one Transfer-Encoding")
            transfer = value.lower()
        elif kind == CONNECTION:
            tokens += tuple(token.strip(b" \t").lower() for token in value.split(b","))
        elif kind == UPGRADE:
            response.upgrade = value
    response.keep_alive = (b"close" not in tokens) if http11 else (b"keep-alive" in tokens)
    response.length = 0
    if length is not None:
        if transfer is not None:
            raise Refused(502, "the app's answer has Content-Length and Transfer-Encoding")
        if not length.isdigit() or len(length) > 18:
            raise Refused(502, "the app's answer has a malformed Content-Length")
        response.length = int(length)
    if status < 200 or status == 204:
        if transfer is not None or response.length:
            raise Refused(502, f"the app's answer has a body, which {status} cannot have")
        response.body = NONE
        length = None
    elif transfer is not None:
        if not http11 or transfer != b"chunked":
            raise Refused(502, "the app's answer has a Transfer-Encoding that is not chunked")
        response.body = CHUNKED
    elif length is not None:
        response.body = LENGTH if response.length else NONE
    else:
        response.body = CLOSE
    if method == b"HEAD" or status == 304:
        # there is none, but Content-Length tells what GET would bring
        response.body = NONE
    if length is not None:
        fields.append(b"Content-Length: " + length + b"\r\n")
    response.fields = _without(fields, tokens) if tokens else fields
    return response


class ChunkedReader:
    """Takes a chunked body apart as it comes (RFC 9112 7.1). Extensions and trailers are read and dropped."""

    __slots__ = ("_left", "_pending", "_state", "_trailer", "done", "rest")

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._state = 0  # 0: size line, 1: data, 2: CRLF after data, 3: trailers
        self._trailer = 0
        self.done = False
        self.rest = b""
        """After ``done``: what came behind the body."""

    def feed(self, data: bytes) -> list[bytes]:
        """The data among it, in pieces. ``Refused`` (400) if it is malformed."""
        pieces: list[bytes] = []
        data = self._pending + data if self._pending else data
        self._pending = b""
        position, size = 0, len(data)
        while not self.done and position < size:
            if self._state == 1:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = 2
                continue
            end = data.find(b"\n", position)
            if end < 0:
                self._pending = data[position:]
                if len(self._pending) > MAX_CHUNK_LINE or not _may_be_line(self._pending, self._state):
                    raise Refused(400, "a chunk is malformed")
                return pieces
            line = data[position : end + 1]
            position = end + 1
            self._line(line)
        self.rest = data[position:]
        return pieces

    def _line(self, line: bytes) -> None:
        if self._state == 0:
            match = _CHUNK.fullmatch(line) if len(line) <= MAX_CHUNK_LINE else None
            if match is None:
                raise Refused(400, "a chunk's size is malformed")
            self._left = int(match[1], 16)
            self._state = 1 if self._left else 3
        elif self._state == 2:
            if line != b"\r\n":
                raise Refused(400, "a chunk does not end where it should")
            self._state = 0
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailer += len(line)
            if self._trailer > MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line):
                raise Refused(400, "a trailer is malformed")


def _may_be_line(pending: bytes, state: int) -> bool:
    """False as soon as an unfinished line cannot become a good one."""
    if state == 2:
        return pending == b"\r"
    if state == 0:
        return pending[:1] in b"0123456789abcdefABCDEF"
    return True
