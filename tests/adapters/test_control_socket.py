from __future__ import annotations

import grp
import os
import stat

import pytest

from ndactors.adapters import control_socket
from ndactors.adapters.control_socket import ControlServer


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to a group takes root")
def test_the_group_can_reach_the_socket_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "GROUP", "daemon")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    server = ControlServer(folder / "control.sock", {}, lambda environ, start_response: [])
    group = grp.getgrnam("daemon").gr_gid
    assert (folder / "control.sock").stat().st_gid == folder.stat().st_gid == group
    assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o660
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    server.close()


def test_without_the_group_it_stays_the_owners(tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "GROUP", "no-such-group-here")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    server = ControlServer(folder / "control.sock", {}, lambda environ, start_response: [])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.close()
