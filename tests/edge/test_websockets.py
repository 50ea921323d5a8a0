"""A real WebSocket client and server, directly and through the edge: it makes no difference."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

sys.path.insert(0, str(Path(__file__).parent))

from test_handover import Edge, until

MEGABYTES_16 = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def server():
    """Echoes; ``close 4001 bye`` makes it close so; ``ping`` makes it ping."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    ports: list[int] = []
    over = asyncio.Event()

    async def echo(socket):
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await socket.close(int(code), reason)
            elif message == "ping":
                await (await socket.ping(b"from the server"))
                await socket.send("ponged")
            else:
                await socket.send(message)

    def chosen(socket, offered):
        return "chat" if "chat" in offered else None

    async def main():
        async with serve(
            echo, "127.0.0.1", 0, max_size=None, subprotocols=["chat"], select_subprotocol=chosen
        ) as running:
            ports.append(running.sockets[0].getsockname()[1])
            started.set()
            await over.wait()

    def run():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def edge(server, tmp_path_factory):
    made = Edge(tmp_path_factory.mktemp("edge"), workers=1)
    made.daemon.publish(server)
    yield made
    made.stop()


@pytest.fixture(params=["directly", "through the edge"])
def url(request, server, edge):
    return f"ws://127.0.0.1:{server if request.param == 'directly' else edge.port}/"


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def test_messages(url):
    async def story():
        async with connect(url, max_size=None) as socket:
            for message in (
                "hello",
                "",
                "ä€😀",
                b"",
                b"\x00\xff" * 1000,
                "x" * 125,
                "x" * 126,
                "x" * 65535,
                "x" * 65536,
            ):
                await socket.send(message)
                assert await socket.recv() == message

    run(story())


def test_sixteen_mebibytes(url):
    async def story():
        async with connect(url, max_size=None, ping_interval=None) as socket:
            message = os.urandom(MEGABYTES_16)
            await socket.send(message)
            assert await socket.recv() == message

    run(story())


def test_fragments(url):
    async def story():
        async with connect(url, max_size=None) as socket:

            async def pieces():
                for n in range(100):
                    yield f"piece {n} "

            await socket.send(pieces())
            assert await socket.recv() == "".join(f"piece {n} " for n in range(100))

    run(story())


def test_pings_both_ways(url):
    async def story():
        async with connect(url) as socket:
            await asyncio.wait_for(await socket.ping(b"from the client"), 5)
            await socket.send("ping")
            assert await socket.recv() == "ponged"

    run(story())


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4001, 4999])
def test_close_codes_from_the_server(url, code):
    async def story():
        async with connect(url) as socket:
            await socket.send(f"close {code} because of {code}")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, f"because of {code}")

    run(story())


def test_close_codes_from_the_client(url):
    async def story():
        socket = await connect(url)
        await socket.close(4002, "mine")
        assert socket.close_code == 4002
        assert socket.protocol.close_rcvd.code == 4002

    run(story())


def test_subprotocols_extensions_and_fields(url):
    async def story():
        async with connect(url, subprotocols=["other", "chat"], additional_headers={"X-Own": "1"}) as socket:
            assert socket.subprotocol == "chat"
            assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            assert socket.request.headers["X-Own"] == "1"

    run(story())


def test_a_protocol_error_is_answered_as_directly(url):
    async def story():
        async with connect(url) as socket:
            socket.transport.write(bytes([0x80 | 3, 0x80, 0, 0, 0, 0]))  # a reserved opcode
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 1002
        assert Opcode.TEXT == 1

    run(story())


def test_many_at_once(url):
    async def story():
        async def one(n):
            async with connect(url) as socket:
                for k in range(20):
                    await socket.send(f"{n} {k}")
                    assert await socket.recv() == f"{n} {k}"

        await asyncio.gather(*(one(n) for n in range(100)))

    run(story())


def test_it_lives_through_an_upgrade_of_the_edge_and_changes_of_routes(edge, server):
    async def story():
        async with connect(f"ws://127.0.0.1:{edge.port}/") as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            await asyncio.to_thread(edge.upgrade)
            await asyncio.to_thread(edge.daemon.publish, server, 5)
            await socket.send("after")
            assert await socket.recv() == "after"

    run(story())
    until(lambda: not edge.daemon.report.services["app"].in_flight)


def test_the_library_is_the_one_we_think():
    assert int(websockets.__version__.split(".")[0]) >= 13
