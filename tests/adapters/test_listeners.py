from __future__ import annotations

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from ndactors.adapters.listeners import ProcListeners, parse


def test_our_own_sockets_are_seen():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::", 0), family=socket.AF_INET6) as two:
        found = ProcListeners().of(os.getpid())
        assert ("127.0.0.1", one.getsockname()[1]) in found
        assert ("::", two.getsockname()[1]) in found


def test_a_process_that_is_gone_cannot_be_seen():
    assert ProcListeners().of(2**22 + 1) is None


def test_what_is_connected_does_not_listen():
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:0BB9 0100007F:1F90 01 00000000:00000000\n"
        "   2: 0000000000000000FFFF00000100007F:1F91 0:0 0A\n"
    )
    assert parse(text) == [("127.0.0.1", 3000), ("127.0.0.1", 8081)]


@given(st.text())
def test_nonsense_is_passed_over(text):
    parse(text)
    parse("head\n 0: " + text + " x 0A\n")
