"""The proxies that are measured beside one another: the same upstream for all, each on one core, CPU of all of a proxy's
processes from /proc. Ours runs as it does for users: daemon, edge, capture of headers, a rate limit and countries."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mmdb_writer import MMDBWriter
from netaddr import IPSet

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
NGINX_HEAD = "daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;\n"
TEMPORARY = "".join(
    f"{kind}_temp_path {{folder}}/{{name}}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


@dataclass(frozen=True)
class Proxy:
    """``pids`` are all of its processes; ``beside`` are those of the daemon behind it."""

    name: str
    port: int
    pids: tuple[int, ...]
    beside: tuple[int, ...] = ()
    control: Path | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(name: str) -> str | None:
    places = (f"/usr/sbin/{name}", f"/usr/local/sbin/{name}", str(Path(sys.executable).parent / name))
    return shutil.which(name) or next((place for place in places if os.path.exists(place)), None)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found


def family(pid: int) -> tuple[int, ...]:
    """A process and all below it."""
    below, found = children(), [pid]
    for one in found:
        found += below.get(one, [])
    return tuple(found)


def cpu_seconds(pids: tuple[int, ...]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mb(pid: int) -> float:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmRSS:")) / 1024


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, **environment: str) -> Iterator[int]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, cwd=folder
        )
    try:
        wait_for(port)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nginx(folder: Path, name: str, http: str) -> list[str]:
    (folder / f"{name}.conf").write_text(
        NGINX_HEAD.format(folder=folder, name=name)
        + "events { worker_connections 8192; }\nhttp {\nkeepalive_requests 100000000; client_max_body_size 0;\n"
        + TEMPORARY.format(folder=folder, name=name)
        + http
        + "}\n"
    )
    return [str(find("nginx")), "-c", str(folder / f"{name}.conf"), "-p", str(folder)]


SINK = """
import socket, sys, threading
def serve(sock):
    buffer, view = bytearray(1 << 20), None
    view = memoryview(buffer)
    while True:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            more = sock.recv(65536)
            if not more:
                return
            head += more
        head, _, rest = head.partition(b"\\r\\n\\r\\n")
        length = next(int(line[15:]) for line in head.split(b"\\r\\n") if line.lower().startswith(b"content-length:")) if b"ength:" in head else 0
        left = length - len(rest)
        while left:
            count = sock.recv_into(view)
            if not count:
                return
            left -= count
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """64 bytes at every path; ``/big`` is one GiB."""
    port = free_port()
    with (folder / "big").open("wb") as file:
        file.truncate(1 << 30)
    http = (
        f"access_log off; sendfile on; server {{ listen 127.0.0.1:{port} backlog=1024;\n"
        f"location = /big {{ alias {folder}/big; }} \n"
        f"location / {{ return 200 '{'x' * 64}'; }} }}\n"
    )
    with running(nginx(folder, "upstream", http), port, folder):
        yield port


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[int]:
    """Reads whatever is sent, as fast as it can."""
    port = free_port()
    with running([sys.executable, "-c", SINK, str(port)], port, folder):
        yield port


@contextlib.contextmanager
def nginx_proxy(folder: Path, to: int, *, log: bool) -> Iterator[Proxy]:
    name = "nginx + JSON log" if log else "nginx"
    file, port = ("nginx-log" if log else "nginx"), free_port()
    access = f"access_log {folder}/{file}.log json;" if log else "access_log off;"
    http = (
        'log_format json escape=json \'{"ts":"$time_iso8601","ip":"$remote_addr","method":"$request_method",'
        '"path":"$request_uri","status":$status,"bytes":$bytes_sent,"ms":$request_time,"up":"$upstream_response_time",'
        '"agent":"$http_user_agent","id":"$request_id"}\';\n'
        f"{access}\nupstream app {{ server 127.0.0.1:{to}; keepalive 128; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n"
        'proxy_request_buffering off; proxy_set_header Connection ""; proxy_set_header Host $host;\n'
        "proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $remote_addr; } }\n"
    )
    with running(nginx(folder, file, http), port, folder) as pid:
        yield Proxy(name, port, family(pid))


@contextlib.contextmanager
def haproxy(folder: Path, to: int, *, log: bool) -> Iterator[Proxy]:
    port, collector = free_port(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    collector.bind(("127.0.0.1", 0))
    logs = f"  log 127.0.0.1:{collector.getsockname()[1]} local0\n" if log else ""
    file = folder / ("haproxy-log.cfg" if log else "haproxy.cfg")
    file.write_text(
        f"global\n  nbthread 1\n  maxconn 4096\n{logs}"
        f"defaults\n  mode http\n{'  log global' if log else ''}\n{'  option httplog' if log else ''}\n"
        "  option http-keep-alive\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend in\n  bind 127.0.0.1:{port}\n  option forwardfor\n  unique-id-format %[uuid]\n"
        "  unique-id-header X-Request-Id\n  default_backend app\n"
        f"backend app\n  server one 127.0.0.1:{to}\n"
    )
    with collector, running([str(find("haproxy")), "-db", "-f", str(file)], port, folder) as pid:
        yield Proxy("HAProxy + httplog" if log else "HAProxy", port, family(pid))


@contextlib.contextmanager
def caddy(folder: Path, to: int, *, log: bool) -> Iterator[Proxy]:
    port, file = free_port(), folder / ("Caddyfile-log" if log else "Caddyfile")
    logs = (
        f"log {{\n output file {folder}/caddy.log {{\n roll_size 100MiB\n roll_keep 1\n }}\n format json\n }}"
        if log
        else ""
    )
    file.write_text(
        "{\n admin off\n auto_https off\n persist_config off\n}\n"
        f"http://:{port} {{\n bind 127.0.0.1\n {logs}\n reverse_proxy 127.0.0.1:{to} {{\n"
        " header_up X-Request-Id {http.request.uuid}\n }\n}\n"
    )
    command = [str(find("caddy")), "run", "--config", str(file), "--adapter", "caddyfile"]
    with running(command, port, folder, GOMAXPROCS="1", HOME=str(folder), XDG_DATA_HOME=str(folder)) as pid:
        yield Proxy("Caddy + JSON log" if log else "Caddy", port, family(pid))


def countries(folder: Path) -> Path:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="bench")
    writer.insert_network(IPSet(["127.0.0.0/8"]), {"country_code": "DE"})
    path = folder / "countries.mmdb"
    writer.to_db_file(str(path))
    return path


@contextlib.contextmanager
def nextdeploy(folder: Path, to: int, *, apps: int = 1, routes: int = 1) -> Iterator[Proxy]:
    """The real daemon with one edge worker. The app is the upstream that runs already: its command only waits for it."""
    port, state = free_port(), folder / f"state-{apps}-{routes}"
    countries(folder)
    app = {
        "command": [
            sys.executable,
            "-c",
            f"import time, socket; socket.create_connection(('127.0.0.1', {to})); time.sleep(1e6)",
        ],
        "port": to,
        "healthcheck": {"tcp": True},
        "rate_limit": {"per_ip": "1000000/s", "per_app": "1000000/s", "burst": 100_000},
    }
    per_app = max(1, routes // apps)
    config: dict[str, Any] = {
        "version": "1.0",
        "state_dir": str(state),
        "engine": "process",
        "edge": {"http": f"127.0.0.1:{port}", "workers": 1},
        "geoip": {"database": str(folder / "countries.mmdb")},
        "admin": {"listen": "127.0.0.1:0"},
        "apps": {"app": {**app, "domains": ["*", *(f"h{n}.test" for n in range(per_app - 1))]}},
    }
    for number in range(1, apps):
        # apps that run nothing: what is measured is the edge's tables
        domains = [f"a{number}h{n}.test" for n in range(per_app)]
        config["apps"][f"app{number}"] = {"command": ["true"], "domains": domains, "replicas": 0}
    file = folder / f"nextdeploy-{apps}-{routes}.yml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ndactors", f"--config={file}"]
    with running(command, port, folder, NEXTDEPLOY_ADMIN_PASSWORD="bench") as daemon:
        deadline = time.monotonic() + 20
        while b" 200 " not in ask(port):
            if time.monotonic() > deadline:
                raise TimeoutError((folder / "log").read_text()[-3000:])
            time.sleep(0.1)
        edge = tuple(
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _is_edge(entry, str(state).encode())
        )
        yield Proxy("NextDeploy", port, edge, (daemon,), state / "control.sock")


def _is_edge(entry: Path, state: bytes) -> bool:
    with contextlib.suppress(OSError):
        words = (entry / "cmdline").read_bytes()
        return b"--role=edge" in words and state in words
    return False


def ask(port: int) -> bytes:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        return sock.recv(4096)
    return b""
