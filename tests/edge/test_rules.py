"""What keeps a request from its app, and what is added on the way back."""

from __future__ import annotations

import base64
import json
import sys
import time

import gevent
import pytest
from argon2 import PasswordHasher
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from ndactors.core.model import Rate

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"


def fields(head: bytes) -> dict[bytes, bytes]:
    return {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in head.strip().split(b"\r\n")[1:]}


def signed(user: str, password: str) -> bytes:
    token = base64.b64encode(f"{user}:{password}".encode())
    return b"GET / HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Basic " + token + b"\r\n\r\n"


def test_redirects_answer_with_308_and_reach_no_app(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, redirects={"www.shop.test": "https://shop.test", "/old/*": "/new/*"})
    status, head, _ = ground.ask(b"GET /a?b=1 HTTP/1.1\r\nHost: WWW.shop.test:80\r\n\r\n")
    assert (status, fields(head)[b"location"]) == (308, b"https://shop.test/a?b=1")
    status, head, _ = ground.ask(b"POST /old/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi")
    assert (status, fields(head)[b"location"]) == (308, b"/new/x")
    assert b"x-nextdeploy-error" not in fields(head)
    assert upstream.received == []
    assert ground.ask(GET)[0] == 200


def test_maintenance_answers_503(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, maintenance=True)
    status, head, _ = ground.ask(GET)
    assert (status, fields(head)[b"x-nextdeploy-error"]) == (503, b"maintenance")
    assert b"retry-after" in fields(head)
    ground.route(upstream.port)
    assert ground.ask(GET)[0] == 200


def test_only_allowed_addresses_come_in(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, allow=("10.0.0.0/8",))
    status, head, _ = ground.ask(GET)
    assert (status, fields(head)[b"x-nextdeploy-error"]) == (403, b"forbidden")
    ground.route(upstream.port, allow=("10.0.0.0/8", "127.0.0.1/32"))
    assert ground.ask(GET)[0] == 200
    # behind a trusted proxy it is the client's address that counts
    ground.route(upstream.port, allow=("10.0.0.0/8",), trusted_proxies=("127.0.0.0/8",))
    hop = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: %b\r\n\r\n"
    assert ground.ask(hop % b"10.1.2.3")[0] == 200
    assert ground.ask(hop % b"10.1.2.3, 11.1.1.1")[0] == 403, "only the last hop that we were told is certain"
    assert ground.ask(hop % b"11.1.1.1, 10.1.2.3, 127.0.0.5")[0] == 200


def test_a_password_that_could_not_be_checked_is_no_wrong_one(ground, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: said.append(str(event.exc_value)))  # else: standard error
    upstream = ground.upstream()
    ground.route(
        upstream.port, basic_auth={"ana": PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")}
    )

    def broken(hash, password):
        raise OSError("no descriptor is left")

    with monkeypatch.context() as patched:
        patched.setattr("ndactors.edge.gate._verify", broken)
        assert ground.ask(signed("ana", "secret"))[0] == 401
    assert ground.ask(signed("ana", "secret"))[0] == 200
    assert said == ["no descriptor is left"]


def test_basic_auth(ground):
    upstream = ground.upstream()
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    ground.route(upstream.port, basic_auth={"ana": hasher.hash("secret")})
    status, head, _ = ground.ask(GET)
    assert status == 401
    assert fields(head)[b"www-authenticate"].startswith(b'Basic realm="app"')
    assert ground.ask(signed("ana", "wrong"))[0] == 401
    assert ground.ask(signed("bob", "secret"))[0] == 401
    assert ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ana\r\n\r\n")[0] == 401
    assert ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %%%\r\n\r\n")[0] == 401
    assert upstream.received == []
    assert [ground.ask(signed("ana", "secret"))[0] for _ in range(3)] == [200] * 3
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + signed("ana", "secret").split(b"\r\n", 2)[2][:-2]
    assert ground.ask(body + b"\r\nhello")[0] == 200
    ground.route(upstream.port, basic_auth={"ana": hasher.hash("new")})
    assert ground.ask(signed("ana", "secret"))[0] == 401, "what was right before is not right for ever"


def test_sign_ins_do_not_block_others(ground):
    slow = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1).hash("secret")
    ground.route(ground.upstream().port, basic_auth={"ana": slow})
    waiting = [ground.client().send(signed("ana", f"wrong {n}")) for n in range(8)]
    began = time.monotonic()
    assert ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 401
    assert time.monotonic() - began < 0.2
    assert [client.answer()[0] for client in waiting] == [401] * 8


def test_configured_fields_take_the_place_of_the_apps(ground):
    def answer(sock, head, rest):
        sock.sendall(b"HTTP/1.1 200 OK\r\nServer: app\r\nX-Frame-Options: ALLOW\r\nContent-Length: 2\r\n\r\nok")
        return rest

    ground.route(ground.upstream(answer).port, response_headers={"x-frame-options": "DENY", "X-More": "1"})
    for _ in range(2):
        _, head, _ = ground.ask(GET)
        assert head.lower().count(b"x-frame-options") == 1
        assert fields(head)[b"x-frame-options"] == b"DENY"
        assert fields(head)[b"x-more"] == b"1"
        assert fields(head)[b"server"] == b"app"


def test_error_pages(ground):
    page = "<style>b{color:red}</style><b>{status} {reason}</b> {detail} {id} {other}"
    ground.route(hold_seconds=0, error_pages={"503": page})
    status, head, body = ground.ask(GET)
    assert status == 503
    assert b"<style>b{color:red}</style><b>503 Service Unavailable</b>" in body
    assert fields(head)[b"x-request-id"] in body
    assert b"{other}" in body
    _, head, body = ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n")
    assert json.loads(body)["error"] == "no_backend"


def test_a_limit_throttles_before_it_rejects(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, per_ip=Rate(count=10, seconds=1), burst=3)
    began = time.monotonic()
    clients = [ground.client().send(GET) for _ in range(20)]
    answers = [client.answer() for client in clients]
    took = time.monotonic() - began
    statuses = [status for status, _, _ in answers]
    served = statuses.count(200)
    assert 12 <= served <= 15
    assert 0.7 <= took <= 2.5
    refused = [fields(head) for status, head, _ in answers if status == 429]
    assert refused
    assert all(int(f[b"retry-after"]) >= 1 and f[b"x-nextdeploy-error"] == b"rate_limited" for f in refused)
    totals = ground.app.totals()
    assert totals.rate_limited == len(refused)
    assert totals.throttled == served - 3
    assert totals.requests["GET 429"] == len(refused)


def test_limits_by_app_count_everybody(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, per_app=Rate(count=5, seconds=1), burst=5, trusted_proxies=("127.0.0.0/8",))
    ask = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.%d\r\n\r\n"
    answers = [client.answer()[0] for client in [ground.client().send(ask % n) for n in range(30)]]
    assert 10 <= answers.count(200) <= 12
    ground.route(upstream.port, per_ip=Rate(count=5, seconds=1), burst=5, trusted_proxies=("127.0.0.0/8",))
    answers = [client.answer()[0] for client in [ground.client().send(ask % n) for n in range(30)]]
    assert answers.count(200) == 30


def test_a_client_that_leaves_while_it_is_throttled(ground, wait):
    ground.route(ground.upstream().port, per_ip=Rate(count=2, seconds=1), burst=1)
    assert ground.ask(GET)[0] == 200
    client = ground.client().send(GET)
    wait(lambda: ground.app.totals().throttled == 1)
    client.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset
    client.close()
    wait(lambda: not ground.worker.clients)
    gevent.sleep(0.6)
    assert ground.app.totals().requests == {"GET 200": 1, "GET 499": 1}


@pytest.fixture
def database(tmp_path):
    def make(layout) -> str:
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="test")
        writer.insert_network(IPSet(["127.0.0.0/8"]), layout("DE"))
        writer.insert_network(IPSet(["203.0.113.0/24"]), layout("fr"))
        path = tmp_path / "new.mmdb"
        writer.to_db_file(str(path))
        path.rename(tmp_path / "countries.mmdb")
        return str(tmp_path / "countries.mmdb")

    return make


@pytest.mark.parametrize("layout", [lambda c: {"country_code": c}, lambda c: {"country": {"iso_code": c}}])
def test_the_country_of_a_client(ground, database, layout):
    upstream = ground.upstream()
    ground.route(upstream.port, geoip=database(layout))
    spoofed = b"GET / HTTP/1.1\r\nHost: x\r\nX-Country: ZZ\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    ground.ask(spoofed)
    assert fields(upstream.received[-1])[b"x-country"] == b"DE"
    ground.route(upstream.port, geoip=database(layout), trusted_proxies=("127.0.0.1/32",))
    ground.ask(spoofed)
    assert fields(upstream.received[-1])[b"x-country"] == b"FR"


def test_countries_come_change_and_go_with_their_file(ground, database, tmp_path, monkeypatch):
    monkeypatch.setattr("ndactors.edge.geo.LOOK_SECONDS", 0.0)
    upstream = ground.upstream()
    path = tmp_path / "countries.mmdb"

    def country() -> bytes:
        ground.worker._countries.look(time.monotonic())
        ground.ask(GET)
        return fields(upstream.received[-1]).get(b"x-country", b"")

    ground.route(upstream.port, geoip=str(path))
    assert country() == b""
    database(lambda c: {"country_code": c})
    assert country() == b"DE"
    path.write_bytes(b"no database")
    assert country() == b"DE", "a file that cannot be read changes nothing"
    assert "countries.mmdb" in ground.worker._countries.problem
    database(lambda c: {"country_code": "AT"})
    assert country() == b"AT"
    path.unlink()
    assert country() == b""
