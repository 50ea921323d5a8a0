"""What a worker knows: the routing table, each service with its containers and counters. A snapshot replaces all of it
by one assignment; counters and connections of what stays are carried over."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from ..core.routing import RoutingTable
from ..messages.edge import LATENCY_BUCKETS, Histogram, RoutingSnapshot, Service, ServiceTotals
from .upstream import BackendState

if TYPE_CHECKING:
    from .connection import Connection

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"))
"""Others are counted as one: a client must not be able to make counters without end."""


class ServiceState:
    """One service: settings of the newest snapshot, and what this worker counted since it began."""

    __slots__ = (
        "backends",
        "bytes_in",
        "bytes_out",
        "codes",
        "durations",
        "held",
        "rate_limited",
        "retries",
        "settings",
        "turn",
    )

    def __init__(self, settings: Service) -> None:
        self.settings = settings
        self.backends: list[BackendState] = []
        self.turn = 0
        self.held: deque[Connection] = deque()
        self.codes: dict[tuple[bytes, int], int] = {}
        self.durations: dict[int, list[float]] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries: dict[str, int] = {}
        self.rate_limited = 0

    def count(self, method: bytes, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        key = (method, status)
        codes = self.codes
        codes[key] = codes.get(key, 0) + 1
        kind = status // 100
        row = self.durations.get(kind)
        if row is None:
            row = self.durations[kind] = [0.0] * (len(LATENCY_BUCKETS) + 2)
        row[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        row[-1] += seconds
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def count_retry(self, reason: str) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def totals(self) -> ServiceTotals:
        requests: dict[str, int] = {}
        for (method, status), count in self.codes.items():
            name = method.decode()
            key = f"{name if name in METHODS else 'OTHER'} {status}"
            requests[key] = requests.get(key, 0) + count
        return ServiceTotals(
            app=self.settings.app,
            process=self.settings.process,
            requests=requests,
            durations={
                f"{kind}xx": Histogram(counts=tuple(int(n) for n in row[:-1]), total=row[-1])
                for kind, row in self.durations.items()
            },
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            retries=dict(self.retries),
            rate_limited=self.rate_limited,
            in_flight={b.id: b.in_flight for b in self.backends if b.in_flight},
            held=len(self.held),
        )


class Knowledge:
    """One snapshot, ready for use."""

    def __init__(self, snapshot: RoutingSnapshot, before: Knowledge | None) -> None:
        self.snapshot = snapshot
        known = before.services if before is not None else {}
        self.services: dict[str, ServiceState] = {}
        # containers that left may have requests in flight, which count until they end
        self.leaving: list[tuple[str, BackendState]] = []
        if before is not None:
            self.leaving = [(name, backend) for name, backend in before.leaving if backend.in_flight]
        for name, settings in snapshot.services.items():
            state = known.get(name) or ServiceState(settings)
            state.settings = settings
            self.leaving += [(name, backend) for backend in _replace(state, settings) if backend.in_flight]
            self.services[name] = state
        for name in known.keys() - self.services.keys():
            gone = known[name]
            for backend in gone.backends:
                backend.remove()
                if backend.in_flight:
                    self.leaving.append((name, backend))
        self.table: RoutingTable[ServiceState] = RoutingTable(
            (route.host, route.path, route.strip_path, self.services[route.service])
            for route in snapshot.routes
            if route.service in self.services
        )
        self.trusted = [ipaddress.ip_network(cidr, strict=False) for cidr in snapshot.trusted_proxies]

    def trusts(self, address: str) -> bool:
        if not self.trusted:
            return False
        own = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(own, "ipv4_mapped", None)
        return any((mapped or own) in network for network in self.trusted)

    def totals(self) -> dict[str, ServiceTotals]:
        self.leaving = [(name, backend) for name, backend in self.leaving if backend.in_flight]
        totals = {name: service.totals() for name, service in self.services.items()}
        for name, backend in self.leaving:
            if backend.in_flight and name in totals:
                totals[name].in_flight[backend.id] = backend.in_flight
        return totals


def _replace(state: ServiceState, settings: Service) -> list[BackendState]:
    """Take over the containers of a snapshot; returns those that left."""
    known = {(backend.id, backend.address, backend.port): backend for backend in state.backends}
    kept: list[BackendState] = []
    for wanted in settings.backends:
        key = (wanted.id, wanted.address, wanted.port)
        kept.append(known.pop(key) if key in known else BackendState(*key))
    state.backends = kept
    for backend in known.values():
        backend.remove()
    return list(known.values())
