"""Whether a request may pass: the service's gate and limits are asked before a container is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from . import http1
from .connection import ASKING, Connection
from .exchange import Exchange
from .gate import RateLimits

PLACES_REMEMBERED = 64


class Asking(Connection):
    __slots__ = ()

    def _dispatch(self) -> None:
        """To a container."""

    def _go_on(self) -> None:
        """It may pass."""

    # -- rules -------------------------------------------------------------------------------------

    def _passes(self, exchange: Exchange, now: float) -> bool:
        """False if it was answered here, or waits for a verdict."""
        gate, limits = exchange.plan.gate, exchange.service.limits
        if gate is not None and not gate.lets_in(exchange.address):
            self._fail("forbidden")
            return False
        if limits is not None and not self._admitted(exchange, limits, now):
            return False
        return gate is None or self._past_the_gate(exchange)

    def _past_the_gate(self, exchange: Exchange) -> bool:
        gate, request = exchange.plan.gate, exchange.plan.request
        if gate is None:
            return True
        to = gate.redirect(request)
        if to is not None:
            self._fail("redirect", fields=b"Location: %b\r\n" % to.encode("latin-1"))
            return False
        if gate.maintenance:
            self._fail("maintenance", fields=b"Retry-After: 60\r\n")
            return False
        return not gate.users or self._signed_in(exchange)

    def _signed_in(self, exchange: Exchange) -> bool:
        gate, passwords = exchange.plan.gate, self.worker.passwords
        assert gate is not None
        given = exchange.plan.request.authorization
        verdict = passwords.verdict(gate, given) if given else False
        if verdict is None:

            def known() -> None:
                if self._exchange is exchange and self._step == ASKING:
                    if passwords.verdict(gate, given):
                        self._go_on()
                    else:
                        self._ask_for_password(gate.app)

            self._go(ASKING)
            if not passwords.check(gate, given, known):
                self._fail("rate_limited", fields=b"Retry-After: 1\r\n")
            return False
        if not verdict:
            self._ask_for_password(gate.app)
        return verdict

    def _ask_for_password(self, app: str) -> None:
        self._fail("unauthorized", fields=f'WWW-Authenticate: Basic realm="{app}", charset="UTF-8"\r\n'.encode())

    # -- limits ------------------------------------------------------------------------------------

    def _admitted(self, exchange: Exchange, limits: RateLimits, now: float) -> bool:
        """False if it is too much: answered with 429, or kept for a moment."""
        if len(self._places) > PLACES_REMEMBERED:
            self._places.clear()
        wait = limits.admit(self.worker.shared, self._places, exchange.address, now)
        if wait == 0.0:
            return True
        service = exchange.service
        if wait < 0.0:
            service.turned_away += 1
            self._fail("rate_limited", fields=b"Retry-After: %d\r\n" % max(1, int(1 - wait)))
            return False
        service.throttled += 1
        self._go(ASKING)

        def over() -> None:
            if self._exchange is exchange and self._step == ASKING and self._past_the_gate(exchange):
                self._go_on()

        self.worker.later(now + wait, over)
        return False

    # -- hops before us ----------------------------------------------------------------------------

    def _from_hops(self, request: http1.Request) -> tuple[str, str, bytes, bytes]:
        """Address, country, fields and tail as a trusted proxy tells them."""
        told = dict(request.forwarded or ())
        hops = [value for name, value in request.forwarded or () if name == b"x-forwarded-for"]
        worker = self.worker
        address = self._address
        for hop in reversed(list(_addresses(hops))):
            # the first that no trusted proxy vouches for is the client
            address = hop
            if not worker.knowledge.trusts(hop):
                break
        country = worker.country(address)
        lines = [
            b"X-Forwarded-For: %b\r\n" % b", ".join([*hops, self._address.encode()]),
            b"X-Forwarded-Proto: %b\r\n" % told.get(b"x-forwarded-proto", b"http"),
            b"X-Country: %b\r\n" % country.encode() if country else b"",
            b"X-Request-Id: ",
        ]
        host = told.get(b"x-forwarded-host", request.host)
        return address, country, b"".join(lines), b"\r\nX-Forwarded-Host: %b\r\n\r\n" % host


def _addresses(fields: list[bytes]) -> Iterator[str]:
    for field in fields:
        for part in field.split(b","):
            try:
                yield str(ipaddress.ip_address(part.strip().decode("latin-1").strip("[]")))
            except ValueError:
                continue
