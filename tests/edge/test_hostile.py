"""Malformed and ambiguous messages, against an app that is a strict reader (h11) and writes down every byte: nothing
illegal is passed on, nothing malformed accepted, nothing legal refused."""

from __future__ import annotations

import gevent
import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

H = b"Host: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Strict:
    """Reads with h11; what it cannot read is in ``illegal``, what it could in ``requests``."""

    def __init__(self) -> None:
        self.illegal: list[tuple[str, bytes]] = []
        self.requests: list[tuple[bytes, bytes, list, bytes]] = []

    def __call__(self, sock, head, rest):
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        data = head + b"\r\n\r\n" + rest
        seen = data
        reader.receive_data(data)
        request, body = None, b""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError as error:
                self.illegal.append((str(error), seen))
                sock.sendall(b"HTTP/1.1 400 Illegal\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                raise OSError from error
            if event is h11.NEED_DATA:
                more = sock.recv(65536)
                seen += more
                reader.receive_data(more)
                if not more:
                    raise OSError
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.requests.append((request.method, request.target, list(request.headers), body))
                answer = b"ok" if request.method != b"HEAD" else b""
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + answer)
                return reader.trailing_data[0]
            else:
                raise OSError


@pytest.fixture
def strict(ground):
    app = Strict()
    ground.route(ground.upstream(app).port)
    yield app
    assert app.illegal == []


def get(*lines: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in (b"Host: x", *lines)) + b"\r\n" + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


CONTROL = [bytes([n]) for n in range(32) if n not in (9, 10, 13)] + [b"\x7f"]

MALFORMED: dict[str, bytes] = {
    # framing told twice, or in a way that two readers understand differently (RFC 9112 6.1, 6.3)
    "length and chunked": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunked and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 4", b"Content-Length: 5", body=b"abcde"),
    "two equal lengths": post(b"Content-Length: 4", b"Content-Length: 4", body=b"abcd"),
    "a list of lengths": post(b"Content-Length: 4, 4", body=b"abcd"),
    "a list of two lengths": post(b"Content-Length: 4, 5", body=b"abcd"),
    "empty length": post(b"Content-Length:", body=b"abcd"),
    "signed length": post(b"Content-Length: +4", body=b"abcd"),
    "negative length": post(b"Content-Length: -1", body=b"abcd"),
    "hexadecimal length": post(b"Content-Length: 0x4", body=b"abcd"),
    "length with a point": post(b"Content-Length: 4.0", body=b"abcd"),
    "length with an exponent": post(b"Content-Length: 1e1", body=b"abcd"),
    "length with an underscore": post(b"Content-Length: 1_0", body=b"abcd"),
    "length with a space inside": post(b"Content-Length: 1 0", body=b"abcd"),
    "length with a tab inside": post(b"Content-Length: 1\t0", body=b"abcd"),
    "length in other digits": post("Content-Length: ٤".encode(), body=b"abcd"),
    "quoted length": post(b'Content-Length: "4"', body=b"abcd"),
    "length with words": post(b"Content-Length: 4 bytes", body=b"abcd"),
    "length with a semicolon": post(b"Content-Length: 4;", body=b"abcd"),
    "length beyond 64 bits": post(b"Content-Length: 18446744073709551620", body=b"abcd"),
    "length of a thousand digits": post(b"Content-Length: " + b"9" * 1000, body=b"abcd"),
    "two transfer encodings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked, gzip": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "gzip": post(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunkedx": post(b"Transfer-Encoding: chunkedx", body=b"0\r\n\r\n"),
    "chunk": post(b"Transfer-Encoding: chunk", body=b"0\r\n\r\n"),
    "quoted chunked": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "chunked with a parameter": post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n"),
    "chunked with a comma": post(b"Transfer-Encoding: chunked,", body=b"0\r\n\r\n"),
    "a comma and chunked": post(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n"),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked with a form feed": post(b"Transfer-Encoding: chunked\x0c", body=b"0\r\n\r\n"),
    "chunked with NUL": post(b"Transfer-Encoding: chunked\x00", body=b"0\r\n\r\n"),
    "chunked with a no-break space": post(b"Transfer-Encoding: \xa0chunked", body=b"0\r\n\r\n"),
    "empty transfer encoding": post(b"Transfer-Encoding:", body=b"0\r\n\r\n"),
    "space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "length with space before the colon": post(b"Content-Length : 4", body=b"abcd"),
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "obs-fold of the encoding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": get(b"Host: x", b"X: a", b" b"),
    "obs-fold with a tab": get(b"Host: x", b"X: a", b"\tb"),
    "obs-fold as the first line": b"GET / HTTP/1.1\r\n X: a\r\nHost: x\r\n\r\n",
    # lines (2.2, 5)
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF behind the request line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    "bare LF behind a field": b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    "bare CR in a value": get(b"Host: x", b"X: a\rb"),
    "bare CR behind a field": b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "bare CR in a name": get(b"Host: x", b"X\rY: a"),
    "CR CR LF": b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
    "LF CR": b"GET / HTTP/1.1\r\nHost: x\n\r\n\r",
    "no colon": get(b"Host: x", b"NoColon"),
    "no name": get(b"Host: x", b": value"),
    "space in a name": get(b"Host: x", b"X Y: a"),
    "quote in a name": get(b"Host: x", b'X": a'),
    "slash in a name": get(b"Host: x", b"X/Y: a"),
    "bracket in a name": get(b"Host: x", b"X[Y]: a"),
    "high byte in a name": get(b"Host: x", b"X\xe4: a"),
    "NUL in a name": get(b"Host: x", b"X\x00: a"),
    "space before a name": get(b"Host: x", b"A: b", b" X: a"),
    "a request line as a field": get(b"Host: x", b"GET /smuggled HTTP/1.1"),
    # the request line (3)
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces before the version": b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space at the end": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a space at the beginning": b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "lower case version": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"GET / HTTPS/1.1\r\nHost: x\r\n\r\n",
    "a version without a minor": b"GET / HTTP/1\r\nHost: x\r\n\r\n",
    "a version with two digits": b"GET / HTTP/1.10\r\nHost: x\r\n\r\n",
    "a version with a leading zero": b"GET / HTTP/01.1\r\nHost: x\r\n\r\n",
    "a version with a comma": b"GET / HTTP/1,1\r\nHost: x\r\n\r\n",
    "a version with letters": b"GET / HTTP/1.x\r\nHost: x\r\n\r\n",
    "a method with a slash": b"GE/T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with a colon": b"GET: / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with a high byte": b"G\xc9T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": get(b"Host: x", target=b"/a#b"),
    "a relative target": get(b"Host: x", target=b"a/b"),
    "a backslash first": get(b"Host: x", target=b"\\a"),
    "NUL in the target": get(b"Host: x", target=b"/a\x00b"),
    "a high byte in the target": get(b"Host: x", target=b"/\xe4"),
    "DEL in the target": get(b"Host: x", target=b"/\x7f"),
    "an asterisk with GET": get(b"Host: x", target=b"*"),
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "CONNECT with a path": b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown scheme": get(b"Host: x", target=b"ftp://x/"),
    "a scheme without an authority": get(b"Host: x", target=b"http:///a"),
    "user information in the target": get(b"Host: x", target=b"http://me@x/"),
    "a target of another host": get(b"Host: x", target=b"http://y/"),
    "a target of another port": get(b"Host: x", target=b"http://x:81/"),
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # Host (3.2)
    "no Host": get(b"X: y"),
    "two Hosts": get(b"Host: x", b"Host: x"),
    "two different Hosts": get(b"Host: x", b"Host: y"),
    "two Hosts in different case": get(b"Host: x", b"HOST: x"),
    "a list of Hosts": get(b"Host: x, y"),
    "Host with a space": get(b"Host: x y"),
    "Host with user information": get(b"Host: me@x"),
    "Host with a path": get(b"Host: x/a"),
    "Host with a query": get(b"Host: x?a"),
    "Host with a fragment": get(b"Host: x#a"),
    "Host with a backslash": get(b"Host: x\\y"),
    "Host with quotes": get(b'Host: "x"'),
    "Host with angle brackets": get(b"Host: <x>"),
    "Host with a bad port": get(b"Host: x:port"),
    "Host with a long port": get(b"Host: x:123456"),
    "Host with two ports": get(b"Host: x:80:81"),
    "Host with a negative port": get(b"Host: x:-1"),
    "Host with an open bracket": get(b"Host: [::1"),
    "Host with a name in brackets": get(b"Host: [example]"),
    "Host with something behind brackets": get(b"Host: [::1]x"),
    "Host with a high byte": get(b"Host: x\xe4"),
    "empty Host": get(b"Host:"),
    "Host with a bar": get(b"Host: x|y"),
    "Host with a caret": get(b"Host: x^y"),
    # chunks (7.1)
    "chunk size without digits": chunked(b"\r\nabc\r\n0\r\n\r\n"),
    "chunk size in words": chunked(b"three\r\nabc\r\n0\r\n\r\n"),
    "negative chunk size": chunked(b"-3\r\nabc\r\n0\r\n\r\n"),
    "signed chunk size": chunked(b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with 0x": chunked(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a space before": chunked(b" 3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a space behind": chunked(b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk size with a tab behind": chunked(b"3\t\r\nabc\r\n0\r\n\r\n"),
    "chunk size with an underscore": chunked(b"0_3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a comma": chunked(b"3,\r\nabc\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "chunk size with many zeros": chunked(b"0" * 5000 + b"3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with bare LF": chunked(b"3\nabc\r\n0\r\n\r\n"),
    "chunk size with CR CR LF": chunked(b"3\r\r\nabc\r\n0\r\n\r\n"),
    "chunk too long": chunked(b"3\r\nabcd\r\n0\r\n\r\n"),
    "chunk too short": chunked(b"4\r\nabc\r\n0\r\n\r\n"),
    "chunk data ended by LF": chunked(b"3\r\nabc\n0\r\n\r\n"),
    "chunk data ended by CR": chunked(b"3\r\nabc\r0\r\n\r\n"),
    "chunk data not ended": chunked(b"3\r\nabc0\r\n\r\n"),
    "last chunk with bare LF": chunked(b"3\r\nabc\r\n0\n\n"),
    "end of trailers with bare LF": chunked(b"3\r\nabc\r\n0\r\n\n"),
    "NUL in an extension": chunked(b"3;a=\x00\r\nabc\r\n0\r\n\r\n"),
    "bare CR in an extension": chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "an extension that does not end": chunked(b"3;" + b"a" * 6000 + b"\r\nabc\r\n0\r\n\r\n"),
    "a trailer without a colon": chunked(b"0\r\nTrailer\r\n\r\n"),
    "a folded trailer": chunked(b"0\r\nX: a\r\n b\r\n\r\n"),
    "a trailer with NUL": chunked(b"0\r\nX: \x00\r\n\r\n"),
    "a trailer with space before the colon": chunked(b"0\r\nX : a\r\n\r\n"),
    "trailers without end": chunked(
        b"0\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 2000 + b"\r\n"
    ),
    # sizes (431, 414 as 431)
    "a long target": get(b"Host: x", target=b"/" + b"a" * 40_000),
    "a long field": get(b"Host: x", b"X: " + b"a" * 40_000),
    "too many fields": get(b"Host: x", *[b"X-%d: a" % n for n in range(200)]),
    "a head without end": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000,
    # expectations
    "an unknown expectation": post(b"Expect: 200-ok", b"Content-Length: 4", body=b"abcd"),
    "TRACE with a body": b"TRACE / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd",
    **{f"control byte {byte[0]:#04x} in a value": get(b"Host: x", b"X: a" + byte + b"b") for byte in CONTROL},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_the_connection_closed(ground, strict, name):
    client = ground.client()
    try:
        client.send(MALFORMED[name])
        answer = client.rest()
    except OSError:
        answer = client.pending
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    status = int(answer.split(b" ")[1])
    assert status in (400, 413, 417, 431, 501, 505), answer[:200]
    assert b"connection: close" in answer.lower()
    assert b"\nHTTP/1.1 " not in answer, "nothing behind it is understood as a request"
    gevent.sleep(0)
    if "Transfer-Encoding: chunked" not in MALFORMED[name].decode("latin-1"):
        assert strict.requests == []
    assert not any(target == b"/smuggled" for _, target, _, _ in strict.requests)


def test_there_are_enough_of_them():
    assert len(MALFORMED) >= 150


STATUSES = {"a long target": 431, "too many fields": 431, "a head without end": 431, "a version with letters": 400}


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_some_refusals_have_their_own_status(ground, strict, name, status):
    assert ground.client().send(MALFORMED[name]).rest().startswith(b"HTTP/1.1 %d " % status)


def test_an_unknown_version_is_505(ground, strict):
    for version in (b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.1"):
        assert ground.client().send(get(b"Host: x", version=version)).rest().startswith(b"HTTP/1.1 505 ")


LEGAL: dict[str, tuple[bytes, bytes, bytes]] = {
    # request, target and body that the app should see
    "the least": (get(b"Host: x"), b"/", b""),
    "HTTP/1.0 with Host": (get(b"Host: x", version=b"HTTP/1.0"), b"/", b""),
    "HTTP/1.0 without Host": (get(version=b"HTTP/1.0"), b"/", b""),
    "empty lines before": (b"\r\n\r\n" + get(b"Host: x"), b"/", b""),
    "a field without a value": (get(b"Host: x", b"X:"), b"/", b""),
    "no space behind the colon": (get(b"Host:x", b"X:y"), b"/", b""),
    "much space": (get(b"Host: \t x \t", b"X: \t y \t "), b"/", b""),
    "high bytes in a value": (get(b"Host: x", b"X: \xe4\xff"), b"/", b""),
    "a tab in a value": (get(b"Host: x", b"X: a\tb"), b"/", b""),
    "every token letter": (get(b"Host: x", b"!#$%&'*+-.^_`|~09azAZ: a"), b"/", b""),
    "a method of its own": (b"PURGE /x HTTP/1.1\r\nHost: x\r\n\r\n", b"/x", b""),
    "a query": (get(b"Host: x", target=b"/a?b=c&d=%20//?"), b"/a?b=c&d=%20//?", b""),
    "odd but legal letters": (
        get(b"Host: x", target=b"/a;b=c,d!e$f&g'h(i)*+j:k@l~m"),
        b"/a;b=c,d!e$f&g'h(i)*+j:k@l~m",
        b"",
    ),
    "double slashes": (get(b"Host: x", target=b"//a//b"), b"//a//b", b""),
    "dots": (get(b"Host: x", target=b"/a/../b/./c"), b"/a/../b/./c", b""),
    "absolute form": (get(b"Host: x", target=b"http://x/a?b"), b"/a?b", b""),
    "absolute form without a path": (get(b"Host: x", target=b"http://x"), b"/", b""),
    "absolute form with a query only": (get(b"Host: x", target=b"http://x?a"), b"/?a", b""),
    "absolute form in another case": (get(b"Host: X", target=b"HTTP://x/"), b"/", b""),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"*", b""),
    "Host with a port": (get(b"Host: x:8080"), b"/", b""),
    "Host with an empty port": (get(b"Host: x:"), b"/", b""),
    "an IPv6 Host": (get(b"Host: [::1]:80"), b"/", b""),
    "Host with an underscore": (get(b"Host: a_b.x"), b"/", b""),
    "Host with percent": (get(b"Host: a%20b"), b"/", b""),
    "Host with a final dot": (get(b"Host: x."), b"/", b""),
    "a body": (post(b"Content-Length: 4", body=b"abcd"), b"/", b"abcd"),
    "a body of nothing": (post(b"Content-Length: 0"), b"/", b""),
    "a length with zeros before": (post(b"Content-Length: 0004", body=b"abcd"), b"/", b"abcd"),
    "a GET with a body": (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd", b"/", b"abcd"),
    "a DELETE with a body": (b"DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd", b"/", b"abcd"),
    "a POST without a body": (post(), b"/", b""),
    "chunks": (chunked(b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), b"/", b"abcd"),
    "chunks in capitals": (
        post(b"Transfer-Encoding: CHUNKED", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        b"/",
        b"0123456789",
    ),
    "chunk sizes with zeros before": (chunked(b"0003\r\nabc\r\n000\r\n\r\n"), b"/", b"abc"),
    "chunk extensions": (chunked(b'3;a;b=c;d="e f"\r\nabc\r\n0;z\r\n\r\n'), b"/", b"abc"),
    "trailers": (chunked(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More:\r\n\r\n"), b"/", b"abc"),
    "chunked HTTP/1.1 with connection close": (chunked(b"0\r\n\r\n", b"Connection: close"), b"/", b""),
    "TE": (get(b"Host: x", b"TE: trailers", b"Connection: TE"), b"/", b""),
    "Connection names fields": (get(b"Host: x", b"Connection: close, X-Hop", b"X-Hop: 1"), b"/", b""),
    "many fields": (get(b"Host: x", *[b"X-%d: a" % n for n in range(100)]), b"/", b""),
    "a long field": (get(b"Host: x", b"X: " + b"a" * 30_000), b"/", b""),
    "repeated fields": (get(b"Host: x", b"X: a", b"X: b", b"Cookie: a=b", b"Cookie: c=d"), b"/", b""),
    "Upgrade to h2c": (
        get(b"Host: x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA"),
        b"/",
        b"",
    ),
}


@pytest.mark.parametrize("name", LEGAL)
@pytest.mark.parametrize("split", [0, 1, 7])
def test_what_is_legal_arrives(ground, strict, name, split):
    raw, target, body = LEGAL[name]
    client = ground.client()
    if split == 1 and len(raw) > 3000:
        split = 101
    for start in range(0, len(raw), split or len(raw)):
        client.send(raw[start : start + (split or len(raw))])
        if split:
            gevent.sleep(0)
    assert client.answer()[0] == 200
    ((_, seen_target, fields, seen_body),) = strict.requests
    assert (seen_target, seen_body) == (target, body)
    assert b"x-hop" not in dict(fields)


def test_fields_arrive_as_they_were(ground, strict):
    ground.ask(get(b"Host: x", b"X-A:  one ", b"X-A: two", b"X-Empty:", b"X-High: \xe4"))
    ((_, _, fields, _),) = strict.requests
    assert [f for f in fields if f[0].startswith((b"x-a", b"x-empty", b"x-high"))] == [
        (b"x-a", b"one"),
        (b"x-a", b"two"),
        (b"x-empty", b""),
        (b"x-high", b"\xe4"),
    ]


token = st.from_regex(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
value = st.from_regex(rb"([\x21-\x7e\x80-\xff]([\t \x21-\x7e\x80-\xff]{0,40}[\x21-\x7e\x80-\xff])?)?", fullmatch=True)
path = st.from_regex(rb"/[A-Za-z0-9\-._~%!$&'()*+,;=:@/?]{0,60}", fullmatch=True)
OURS = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"keep-alive", b"te",
    b"trailer", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"forwarded", b"x-real-ip",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-country", b"x-request-id",
}  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PURGE"]),
            path,
            st.lists(st.tuples(token.filter(lambda name: name.lower() not in OURS), value), max_size=8),
            st.one_of(st.none(), st.binary(max_size=3000)),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(1, 400), max_size=12),
)
def test_random_valid_requests_arrive_equal_at_random_splits(ground, strict, requests, cuts):
    strict.requests.clear()
    raw = b""
    for method, target, fields, body, in_chunks in requests:
        raw += method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n"
        raw += b"".join(name + b": " + content + b"\r\n" for name, content in fields)
        if body is None:
            raw += b"\r\n"
        elif in_chunks:
            pieces = [body[n : n + 700] for n in range(0, len(body), 700)]
            raw += b"Transfer-Encoding: chunked\r\n\r\n"
            raw += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            raw += b"Content-Length: %d\r\n\r\n" % len(body) + body
    client = ground.client()
    for cut in cuts:
        client.send(raw[:cut])
        raw = raw[cut:]
        gevent.sleep(0)
        if not raw:
            break
    if raw:
        client.send(raw)
    for _ in requests:
        assert client.answer()[0] == 200
    client.close()
    seen = [
        (method, target, [(name, content) for name, content in fields if name not in OURS], body)
        for method, target, fields, body in strict.requests
    ]
    assert seen == [
        (method, target, [(name.lower(), content) for name, content in fields], body or b"")
        for method, target, fields, body, _ in requests
    ]


R = b"HTTP/1.1 200 OK\r\n"
BAD_ANSWERS: dict[str, bytes] = {
    "two lengths": R + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "two equal lengths": R + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": R + b"Content-Length: 2, 2\r\n\r\nok",
    "a signed length": R + b"Content-Length: +2\r\n\r\nok",
    "a negative length": R + b"Content-Length: -2\r\n\r\nok",
    "length and chunked": R + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings": R + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": R + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": R + b"Transfer-Encoding: identity\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare CR in a value": R + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": R + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "obs-fold": R + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": R + b"Content-Length : 2\r\n\r\nok",
    "no colon": R + b"Nonsense\r\nContent-Length: 2\r\n\r\nok",
    "a bad status": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status in words": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status below 100": b"HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no HTTP": b"220 ftp.test ready\r\n\r\n",
    "binary": bytes(range(128, 256)) * 10 + b"\r\n\r\n",
    "204 with a body": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "204 chunked": b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade nobody asked for": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "a head without end": R + b"X: y\r\n" * 50_000,
    "too many fields": R + b"X: y\r\n" * 500 + b"\r\n",
    "a control byte in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_what_an_app_must_not_answer_becomes_a_502(ground, name):
    def answer(sock, head, rest):
        sock.sendall(BAD_ANSWERS[name])
        return rest

    ground.route(ground.upstream(answer).port)
    status, head, _ = ground.ask(get(b"Host: x"))
    assert status == 502
    assert b"x-nextdeploy-error: upstream_reset" in head.lower()


@pytest.mark.parametrize(
    "body", [b"5\r\nhello\r\nzz\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhel", b"\r\n", b"5\nhello\r\n0\r\n\r\n"]
)
def test_a_body_that_breaks_off_is_seen_as_broken(ground, body):
    def answer(sock, head, rest):
        sock.sendall(R + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        gevent.sleep(0.01)
        sock.sendall(body)
        raise OSError

    ground.route(ground.upstream(answer).port)
    answer = ground.client().send(get(b"Host: x")).rest()
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"3\r\nabc\r\n" in answer
