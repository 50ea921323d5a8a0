"""`exec` over TLS: records and polling do not agree by themselves."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading

import pytest


@pytest.fixture
def https(at_real, tmp_path, variables):
    """The address of a proxy that ends TLS before a whole daemon; the client trusts it and has a token."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    host, port = at_real.admin.removeprefix("http://").split(":")

    async def copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader, writer):
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = at_real.post("/api/v1/tokens", {"name": f"tls{os.getpid()}{port}", "role": "operator"})
    variables["NEXTDEPLOY_TOKEN"] = made["token"]
    variables["SSL_CERT_FILE"] = str(tmp_path / "cert.pem")
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_much_both_ways_and_the_exit_code(https, variables, project):
    data = os.urandom(1 << 20) * 10
    done = subprocess.run(
        [sys.executable, "-m", "ndactors.cli", "exec", "shop", "--server", https, "--", "sh", "-c", "cat; exit 8"],
        env=variables, cwd=project, input=data, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (8, b"")
    assert done.stdout == data


def test_word_by_word_in_a_terminal(https, terminal):
    here = terminal("exec", "shop", "--server", https, "--", "sh", "-c", 'echo on; while read x; do echo "<$x>"; done')
    here.read_until("on")
    for number in range(20):
        here.write(f"word{number}\r")
        here.read_until(f"<word{number}>")
    here.write("\x04")
    here.rest()
    assert here.process.returncode == 0
