"""What a worker knows: the routing table, each service with its containers and counters. A snapshot replaces all of it
by one assignment; counters and connections of what stays are carried over."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..core.balancing import Group, Share, choose_in_order
from ..core.model import EdgeLimits
from ..core.retrying import RetryBudget
from ..core.routing import RoutingTable, normal_host
from ..core.steering import Steering, Ties
from ..messages.edge import Histogram, RoutingSnapshot, Service, ServiceTotals
from . import http1
from .gate import Gate, RateLimits, response_fields
from .plan import Memo, Plan, Reply
from .upstream import BackendState

if TYPE_CHECKING:
    from .connection import Connection
    from .exchange import Exchange

FORGET_SECONDS = 10.0
"""How often what is known of first-byte times is halved."""
SLOW_REMEMBERED = 200


class ServiceState:
    """One service: settings of the newest snapshot, and what this worker counted since it began."""

    __slots__ = (
        "answers",
        "backends",
        "budget",
        "bytes_in",
        "bytes_out",
        "codes",
        "durations",
        "gate",
        "held",
        "limits",
        "name",
        "replies",
        "response_fields",
        "retries",
        "seen",
        "settings",
        "share",
        "slow",
        "steering",
        "suspected",
        "throttled",
        "turn",
        "turned_away",
    )

    def __init__(self, name: str, settings: Service) -> None:
        self.name = name
        self.backends: list[BackendState] = []
        self.turn = 0
        self.steering: Steering[BackendState] | None = None
        """None while every container may take every request."""
        self.share = Share()
        self.held: deque[Connection] = deque()
        self.codes: dict[tuple[str, int], int] = {}
        self.durations: dict[int, list[float]] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries: dict[str, int] = {}
        self.turned_away = 0
        self.throttled = 0
        self.suspected = 0
        self.budget = RetryBudget()
        self.seen = 0
        self.answers = 0
        self.slow: deque[float] = deque(maxlen=SLOW_REMEMBERED)
        self.gate: Gate | None = None
        self.limits: RateLimits | None = None
        self.take(settings)

    def take(self, settings: Service) -> None:
        """From now on these hold."""
        self.settings = settings
        self.replies: Memo[Reply] = Memo()
        self.response_fields = response_fields(settings)
        self.gate = Gate.of(settings)
        self.limits = RateLimits.of(self.name, settings)

    def end(self) -> list[BackendState]:
        """It is no longer in the snapshot: nobody gets its requests any more. The containers that it had."""
        left = _replace(self, replace(self.settings, backends=()))
        self.settings = replace(self.settings, backends=(), hold_seconds=0.0)
        return left

    # -- where the containers are not all the same for a request -----------------------------------

    def steer(self, exchange: Exchange, now: float) -> BackendState | None:
        """The container that a request gets, and the cookie that its client is to have from now on."""
        steering = self.steering
        assert steering is not None
        ties, groups = self._order(exchange)
        backend = choose_in_order(groups, now, exchange.tried)
        if backend is not None:
            renewed = steering.renewed(ties, backend)
            match = exchange.plan.match
            path = match.path if match is not None else b"/"
            exchange.cookie = b"\r\n" + steering.set_cookie(renewed, path) if renewed is not None else b""
        return backend

    def others(self, exchange: Exchange, backend: BackendState) -> list[BackendState]:
        """Where it may go instead."""
        if self.steering is None:
            candidates: Iterable[BackendState] = self.backends
        else:
            candidates = chain.from_iterable(group.members for group in self._order(exchange)[1])
        return [other for other in candidates if other is not backend and other not in exchange.tried]

    def _order(self, exchange: Exchange) -> tuple[Ties, tuple[Group[BackendState], ...]]:
        steering, plan = self.steering, exchange.plan
        assert steering is not None
        ties = plan.ties
        if ties is None:
            request = plan.request
            ties = plan.ties = steering.read(request.fields, request.method, request.accept)
        groups, exchange.canary = steering.order(ties, self.share, exchange.canary)
        return ties, groups

    # -- counting ----------------------------------------------------------------------------------

    def count_retry(self, reason: str) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def refill(self, seconds: float) -> None:
        """The retry budget, by what came since the last time."""
        seen = sum(self.codes.values())
        self.budget.refill(seen - self.seen, seconds)
        self.seen = seen

    def forget_half(self) -> None:
        self.answers //= 2
        for _ in range(len(self.slow) // 2):
            self.slow.popleft()

    def totals(self) -> ServiceTotals:
        return ServiceTotals(
            app=self.settings.app,
            process=self.settings.process,
            requests={f"{method} {status}": number for (method, status), number in self.codes.items()},
            durations={
                f"{kind}xx": Histogram(counts=tuple(int(n) for n in row[:-1]), total=row[-1])
                for kind, row in self.durations.items()
            },
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            retries=dict(self.retries),
            rate_limited=self.turned_away,
            throttled=self.throttled,
            suspected=self.suspected,
            in_flight={b.id: b.in_flight for b in self.backends if b.in_flight},
            held=len(self.held),
            tunnels={b.id: b.tunnels for b in self.backends if b.tunnels},
        )


class Knowledge:
    """One snapshot, ready for use."""

    def __init__(self, snapshot: RoutingSnapshot, before: Knowledge | None) -> None:
        self.snapshot = snapshot
        self.plans: Memo[Plan] = Memo()
        known = before.services if before is not None else {}
        self.services: dict[str, ServiceState] = {}
        self.nobody: ServiceState = (
            before.nobody if before is not None else ServiceState("", Service(app="", process=""))
        )
        """Where requests are counted that belong to no service."""
        # containers that left may have requests in flight, which count until they end
        self.leaving: list[tuple[str, BackendState]] = []
        self.left: list[BackendState] = []
        self.ended: list[ServiceState] = []
        if before is not None:
            self.leaving = [(name, backend) for name, backend in before.leaving if backend.in_flight]
        for name, settings in snapshot.services.items():
            state = known.get(name)
            if state is None:
                state = ServiceState(name, settings)
            elif state.settings != settings:
                state.take(settings)
            self._leave(name, _replace(state, settings))
            self.services[name] = state
        for name in known.keys() - self.services.keys():
            self.ended.append(known[name])
            self._leave(name, known[name].end())
        self.table: RoutingTable[ServiceState] = RoutingTable(
            (route.host, route.path, route.strip_path, self.services[route.service])
            for route in snapshot.routes
            if route.service in self.services
        )
        self.trusted = [ipaddress.ip_network(cidr, strict=False) for cidr in snapshot.trusted_proxies]

    def _leave(self, name: str, backends: list[BackendState]) -> None:
        self.left += backends
        self.leaving += [(name, backend) for backend in backends if backend.in_flight]

    @property
    def limits(self) -> EdgeLimits:
        return self.snapshot.limits

    def plan(self, head: bytes) -> Plan:
        """What a whole request head means. ``Refused`` if it is none."""
        request = http1.parse_request(head)
        match = self.table.find(normal_host(request.host), request.path)
        plan = Plan(request, len(head), match)
        self.plans.keep(head, plan)
        return plan

    def every_backend(self) -> Iterator[BackendState]:
        for service in self.services.values():
            yield from service.backends
        for _, backend in self.leaving:
            yield backend

    def trusts(self, address: str) -> bool:
        if not self.trusted:
            return False
        try:
            own = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(own, "ipv4_mapped", None)
        return any((mapped or own) in network for network in self.trusted)

    def totals(self) -> dict[str, ServiceTotals]:
        self.leaving = [(name, backend) for name, backend in self.leaving if backend.in_flight]
        totals = {name: service.totals() for name, service in self.services.items()}
        for name, backend in self.leaving:
            total = totals.get(name)
            if total is None:
                # its service is gone too, but whoever waits for it to be idle must see that it is not
                settings = backend.service.settings if backend.service is not None else Service(app=name)
                total = totals[name] = ServiceTotals(app=settings.app, process=settings.process)
            for gauge, number in ((total.in_flight, backend.in_flight), (total.tunnels, backend.tunnels)):
                if number:
                    gauge[backend.id] = gauge.get(backend.id, 0) + number
        return totals


def _replace(state: ServiceState, settings: Service) -> list[BackendState]:
    """Take over the containers of a snapshot; returns those that left."""
    known = {(backend.id, backend.address, backend.port): backend for backend in state.backends}
    kept: list[BackendState] = []
    for wanted in settings.backends:
        key = (wanted.id, wanted.address, wanted.port)
        backend = known.pop(key) if key in known else BackendState(*key, state)
        backend.revision, backend.role = wanted.revision, wanted.role
        kept.append(backend)
    state.backends = kept
    state.steering = _steering(settings, kept)
    for backend in known.values():
        backend.remove()
    return list(known.values())


def _steering(settings: Service, backends: list[BackendState]) -> Steering[BackendState] | None:
    if not (settings.sticky or settings.skew or any(backend.role for backend in backends)):
        return None
    return Steering(
        settings.app,
        backends,
        sticky=settings.sticky,
        skew=settings.skew,
        canary_percent=settings.canary_percent,
    )
