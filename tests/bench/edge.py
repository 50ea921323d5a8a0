"""The edge beside nginx, HAProxy and Caddy, in one run: `python tests/bench/edge.py`. Rounds are taken in turn and medians
are printed, because a machine's speed drifts."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from proxies import Proxy, caddy, cpu_seconds, find, haproxy, nextdeploy, nginx_proxy, resident_mb, sink, upstream

CONNECTIONS = 64
SHORT = "--short" in sys.argv
ROUNDS, SECONDS = (1, 1) if SHORT else (5, 4)
OWN = "NextDeploy"
# every head is another one: nothing can be remembered
VARIED = """
local n = 0
request = function()
  n = n + 1
  return "GET /item/" .. n .. "?q=" .. (n * 7919) .. " HTTP/1.1\\r\\nHost: bench\\r\\nUser-Agent: wrk\\r\\n" ..
    "Accept: text/html,application/xhtml+xml\\r\\nAccept-Language: en\\r\\nCookie: session=" .. (n * 104729) .. "\\r\\n\\r\\n"
end
"""


def wrk(proxy: Proxy, seconds: float, *more: str) -> int:
    """Requests answered."""
    output = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", *more, f"http://127.0.0.1:{proxy.port}/"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        print(f"  note, {proxy.name}: {' '.join(output.split())}")
    return int(re.findall(r"(\d+) requests in", output)[0])


def cost(proxy: Proxy, seconds: float, *more: str) -> tuple[float, float, float]:
    """Microseconds of CPU for each request: the proxy's, and of what is behind it until it has caught up; and requests
    per second."""
    before, behind = cpu_seconds(proxy.pids), cpu_seconds(proxy.beside)
    count = wrk(proxy, seconds, *more)
    used = cpu_seconds(proxy.pids) - before
    if proxy.beside:
        time.sleep(1.5)  # what waits on the link is stored by then, or counts for the next round
    return used / count * 1e6, (cpu_seconds(proxy.beside) - behind) / count * 1e6, count / seconds


def table(title: str, costs: dict[str, list[float]], rates: dict[str, list[float]]) -> None:
    print(title)
    own = statistics.median(costs[OWN])
    for name, values in costs.items():
        middle = statistics.median(values)
        print(
            f"  {name:18} {middle:6.1f} µs  ({min(values):.1f} to {max(values):.1f})  ours is {own / middle:4.2f} times that;"
            f"  {statistics.median(rates[name]):,.0f} requests/s"
        )


def costs(proxies: list[Proxy], folder: Path) -> None:
    script = folder / "varied.lua"
    script.write_text(VARIED)
    for title, more in (("the same head again and again", ()), ("every head another one", ("-s", str(script)))):
        used: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
        rates: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
        beside: list[float] = []
        for proxy in proxies:
            wrk(proxy, 1, *more)
        for _ in range(ROUNDS):
            for proxy in proxies:
                each, behind, rate = cost(proxy, SECONDS, *more)
                used[proxy.name].append(each)
                rates[proxy.name].append(rate)
                if proxy.beside:
                    beside.append(behind)
        table(f"\nCPU per request, {CONNECTIONS} keep-alive clients, 64-byte answers, {title}", used, rates)
        print(f"  and the daemon, until each record is durable: {statistics.median(beside):.1f} µs")


def bodies(proxies: list[Proxy], folder: Path, makers: list[Any]) -> None:
    size = 0.1 if SHORT else 1.0
    limit = ["--range", f"0-{int(size * (1 << 30)) - 1}"]
    upload = folder / "upload"
    with upload.open("wb") as file:
        file.truncate(int(size * (1 << 30)))
    (folder / "up").mkdir()
    (folder / "up").chmod(0o755)

    def streamed(proxy: Proxy, *how: str) -> float:
        used = []
        for _ in range(1 if SHORT else 3):
            before = cpu_seconds(proxy.pids)
            subprocess.run(["curl", "-sSf", "-o", "/dev/null", *how], check=True)
            used.append((cpu_seconds(proxy.pids) - before) / size)
        return statistics.median(used)

    print("\nCPU seconds per GiB streamed, by Content-Length")
    with contextlib.ExitStack() as stack:
        to = stack.enter_context(sink(folder))
        for proxy, make in zip(proxies, makers, strict=True):
            other = stack.enter_context(make(folder / "up", to))
            down = streamed(proxy, *limit, f"http://127.0.0.1:{proxy.port}/big")
            up = streamed(other, "-H", "Expect:", "-T", str(upload), f"http://127.0.0.1:{other.port}/sink")
            print(f"  {proxy.name:18} down {down:5.2f}  up {up:5.2f}")


def latencies(proxies: list[Proxy], folder: Path, port: int) -> None:
    if shutil.which("h2load") is None:
        print("\nadded latency: h2load is needed and not installed")
        return
    seconds = 2 if SHORT else 10
    print(f"\nLatency at 2,000 requests/s, 20 clients, {seconds} s, milliseconds")
    for proxy in [Proxy("the app directly", port, ()), *proxies]:
        rows: list[tuple[float, float]] = []
        for _ in range(1 if SHORT else 3):
            log = folder / "h2load.log"
            log.unlink(missing_ok=True)
            subprocess.run(
                [
                    "h2load",
                    "--h1",
                    "-c20",
                    "-t1",
                    "--rps=100",
                    f"-D{seconds}",
                    f"--log-file={log}",
                    f"http://127.0.0.1:{proxy.port}/",
                ],
                capture_output=True,
                check=True,
            )
            times = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
            rows.append((times[len(times) // 2], times[int(len(times) * 0.99)]))
        rows.sort(key=lambda row: row[1])
        print(f"  {proxy.name:18} p50 {rows[len(rows) // 2][0]:5.2f}  p99 {rows[len(rows) // 2][1]:5.2f}")


def idle(proxies: list[Proxy]) -> None:
    (own,) = (proxy for proxy in proxies if proxy.name == OWN)
    worker = max(own.pids)
    print("\nMemory of the worker, resident")
    print(f"  after the load above        {resident_mb(worker):5.1f} MB")
    before = resident_mb(worker)
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", own.port), 5))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            sock.recv(4096)
        print(f"  1,000 idle connections more {resident_mb(worker) - before:5.1f} MB")


def dropped(proxies: list[Proxy]) -> None:
    (own,) = (proxy for proxy in proxies if proxy.name == OWN)
    assert own.control is not None
    connection = http.client.HTTPConnection("control")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(own.control))
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    total = sum(float(line.split()[-1]) for line in lines if line.startswith("nextdeploy_requests_total{"))
    lost = next(float(line.split()[-1]) for line in lines if line.startswith("nextdeploy_requests_dropped_total"))
    print(f"\nOf {total:,.0f} requests of the load above, all recorded, {lost:,.0f} records were dropped")


def flat(folder: Path, to: int) -> None:
    """The same load with one app and one route, and with many."""
    print("\nCPU per request with more apps and routes, microseconds")
    for apps, routes in ((1, 1), (500, 10_000)):
        place = folder / f"flat-{apps}"
        place.mkdir()
        with nextdeploy(place, to, apps=apps, routes=routes) as proxy:
            wrk(proxy, 1)
            values = [cost(proxy, SECONDS)[0] for _ in range(ROUNDS)]
            print(
                f"  {apps:3} apps, {routes:6,} routes  {statistics.median(values):5.1f}  ({min(values):.1f} to {max(values):.1f})"
            )


def main() -> int:
    if find("nginx") is None or shutil.which("wrk") is None:
        print("edge: nginx and wrk are needed to measure beside; they are not installed")
        return 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        to = stack.enter_context(upstream(folder))
        makers: list[tuple[Any, bool]] = [(nginx_proxy, False), (nginx_proxy, True)]
        makers += [(haproxy, False), (haproxy, True)] if find("haproxy") else []
        makers += [(caddy, False), (caddy, True)] if find("caddy") else []
        ready = [*(partial(make, log=log) for make, log in makers), nextdeploy]
        proxies = [stack.enter_context(make(folder, to)) for make in ready]
        costs(proxies, folder)
        bodies(proxies, folder, ready)
        latencies(proxies, folder, to)
        idle(proxies)
        dropped(proxies)
        flat(folder, to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
