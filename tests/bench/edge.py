"""CPU for each proxied request, ours beside nginx and HAProxy, in one run: `python tests/bench/edge.py`. The same upstream
and the same load for each; CPU of all of a proxy's processes from /proc, not wall time. Rounds are taken in turn and the
median is printed, because a machine's speed drifts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ndactors.messages.edge import PROTOCOL, Backend, EdgeReport, Hello, Refused, Route, RoutingSnapshot, Service
from ndactors.runtime.link import FrameReader, connect_unix, encode

ROOT = Path(__file__).parents[2]
CONNECTIONS = 64
ROUNDS, SECONDS = 5, 4
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(name: str) -> str | None:
    return shutil.which(name) or next(
        (p for p in (f"/usr/sbin/{name}", f"/usr/local/sbin/{name}") if os.path.exists(p)), None
    )


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[int]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_for(port)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def upstream_config(folder: Path, port: int) -> list[str]:
    (folder / "upstream.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/upstream.pid; error_log {folder}/upstream.err;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 100000000; server { "
        f"listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 '{'x' * 64}'; }} }} }}\n"
    )
    return [str(find("nginx")), "-c", str(folder / "upstream.conf"), "-p", str(folder)]


def nginx_config(folder: Path, port: int, upstream: int, *, log: bool) -> list[str]:
    name = "nginx-log" if log else "nginx"
    access = f"access_log {folder}/access.log json;" if log else "access_log off;"
    (folder / f"{name}.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;\n"
        "events { worker_connections 4096; }\nhttp {\n"
        'log_format json escape=json \'{"ts":"$time_iso8601","ip":"$remote_addr","method":"$request_method",'
        '"path":"$request_uri","status":$status,"bytes":$bytes_sent,"ms":$request_time,"up":"$upstream_response_time",'
        '"agent":"$http_user_agent","id":"$request_id"}\';\n'
        f"{access}\nkeepalive_requests 100000000;\n"
        f"upstream app {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Request-Id $request_id;\n'
        "proxy_set_header X-Forwarded-For $remote_addr; } } }\n"
    )
    return [str(find("nginx")), "-c", str(folder / f"{name}.conf"), "-p", str(folder)]


def haproxy_config(folder: Path, port: int, upstream: int, sink: int) -> list[str]:
    (folder / "haproxy.cfg").write_text(
        f"global\n  nbthread 1\n  maxconn 4096\n  log 127.0.0.1:{sink} local0\n"
        "defaults\n  mode http\n  log global\n  option httplog\n  option http-keep-alive\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend in\n  bind 127.0.0.1:{port}\n  option forwardfor\n  unique-id-format %[uuid]\n"
        "  unique-id-header X-Request-Id\n  default_backend app\n"
        f"backend app\n  server one 127.0.0.1:{upstream}\n"
    )
    return [str(find("haproxy")), "-db", "-f", str(folder / "haproxy.cfg")]


@contextlib.contextmanager
def our_edge(folder: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """The real processes, told by a link of our own what to do: ``(pid, port)``."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "ndactors",
        "--role=edge",
        f"--state-dir={folder}",
        f"--http=127.0.0.1:{port}",
        "--workers=1",
    ]
    with running(command, port, folder) as pid:
        link = connect_unix(folder / "edge" / "edge.sock")
        link.sendall(encode(Hello(protocol=PROTOCOL, epoch=1, version="bench", pid=os.getpid(), role="daemon")))
        backend = Backend(id="one", address="127.0.0.1", port=upstream)
        snapshot = RoutingSnapshot(
            epoch=1,
            version=1,
            routes=(Route(host="*", service="app"),),
            services={"app": Service(app="app", backends=(backend,))},
        )
        link.sendall(encode(snapshot))
        reader: FrameReader[Hello | Refused | EdgeReport] = FrameReader(Hello | Refused | EdgeReport)
        ready = False
        while not ready:
            for message in reader.feed(link.recv(1 << 16)):
                ready = ready or (
                    isinstance(message, EdgeReport) and any(w.snapshot_version == 1 for w in message.workers)
                )
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: link.recv(1 << 16), b"")], daemon=True)
        drain.start()
        yield pid, port
        link.shutdown(socket.SHUT_RDWR)
        drain.join(5)
        link.close()


def measure(pid: int, port: int, seconds: float) -> tuple[float, float]:
    """Microseconds of CPU for each request, and requests per second."""
    before = cpu_seconds(pid)
    output = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", f"http://127.0.0.1:{port}/"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_seconds(pid) - before
    (count,) = re.findall(r"(\d+) requests in", output)
    if "Non-2xx" in output or "Socket errors" in output:
        print(f"  note: {' '.join(output.split())}")
    return used / int(count) * 1e6, int(count) / seconds


def main() -> int:
    rounds, seconds = (1, 1) if "--short" in sys.argv else (ROUNDS, SECONDS)
    if find("nginx") is None or shutil.which("wrk") is None:
        print("edge: nginx and wrk are needed to measure beside; they are not installed")
        return 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        upstream, sink = free_port(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("127.0.0.1", 0))
        stack.callback(sink.close)
        stack.enter_context(running(upstream_config(folder, upstream), upstream, folder))
        proxies: dict[str, tuple[int, int]] = {}
        for label, logs in (("nginx", False), ("nginx + JSON log", True)):
            port = free_port()
            proxies[label] = (
                stack.enter_context(running(nginx_config(folder, port, upstream, log=logs), port, folder)),
                port,
            )
        if find("haproxy"):
            port = free_port()
            command = haproxy_config(folder, port, upstream, sink.getsockname()[1])
            proxies["HAProxy + httplog"] = (stack.enter_context(running(command, port, folder)), port)
        proxies["NextDeploy"] = stack.enter_context(our_edge(folder, upstream))
        costs: dict[str, list[float]] = {label: [] for label in proxies}
        rates: dict[str, list[float]] = {label: [] for label in proxies}
        for pid, port in proxies.values():
            measure(pid, port, 1)
        for _ in range(rounds):
            for label, (pid, port) in proxies.items():
                cost, rate = measure(pid, port, seconds)
                costs[label].append(cost)
                rates[label].append(rate)
        own = statistics.median(costs["NextDeploy"])
        print(
            f"CPU per proxied request, {CONNECTIONS} keep-alive clients, 64-byte answers, median of {rounds} rounds of {seconds} s"
        )
        for label, values in costs.items():
            cost = statistics.median(values)
            print(
                f"  {label:18} {cost:6.1f} µs  ({min(values):.1f} to {max(values):.1f})  ours is {own / cost:4.2f} times that;"
                f"  {statistics.median(rates[label]):,.0f} requests/s"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
