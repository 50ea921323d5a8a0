"""The log store beside `docker logs` and `grep`, on a real Docker Engine and the same data: `python tests/bench/logs.py`.

A container writes numbered lines as fast as the Engine takes them. Measured is the way from there to the store and to one
live subscriber (a WebSocket of the admin API), what that costs, and what another app's visitors notice; then queries over
all that was stored."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import docker

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / name) for name in ("ground", "logs", "system"))]

import dockerd
import images
from daemon import PASSWORD, Daemon, until
from process import lines

TICKS = os.sysconf("SC_CLK_TCK")
ROLES = ("edge", "edge-worker", "logs", "log-opener", "log-reader")
FLOOD = """
import sys, time
n, end = 0, time.time() + float(sys.argv[1])
while time.time() < end:
    sys.stdout.write("".join(["2026-11-25 10:00:00,%03d %s worker.tasks line %09d of the flood, user=%d path=/api/items\\n"
        % (i % 1000, "ERROR" if i % 1000 == 0 else "INFO", i, i % 977) for i in range(n, n + 1000)]))
    n += 1000
sys.stdout.write("end %d\\n" % n)
sys.stdout.flush()
"""
WEB = """
import asyncio, os
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, OSError):
        writer.close()
async def main():
    await (await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]))).serve_forever()
asyncio.run(main())
"""
SUBSCRIBER = """
import sys, msgspec, websocket, json, base64
class Part(msgspec.Struct): messages: list[str]
class Told(msgspec.Struct): data: list[Part] = []; gap: int | None = None; error: str | None = None
url, basic = sys.argv[1:3]
ws = websocket.create_connection(url, header=["Authorization: Basic " + basic], timeout=120, skip_utf8_validation=True)
ws.send(json.dumps({"subscribe": "logs", "filter": {"process": "flood"}, "batch": True}))
print("ready", flush=True)
decoder, count, gaps, expected, order = msgspec.json.Decoder(Told), 0, 0, 0, True
while True:
    told = decoder.decode(ws.recv())
    gaps += told.gap or 0
    for part in told.data:
        count += len(part.messages)
        if part.messages[-1].startswith("end "):
            print(json.dumps({"count": count - 1, "gaps": gaps}), flush=True)
            sys.exit()
"""


def cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_mb(pid: int) -> float:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(row.split()[1]) for row in rows if row.startswith("Pss:")), 0) / 1024


class Watcher(threading.Thread):
    """The most memory that our processes had together, and how long an app's visitors waited."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.daemon_ = daemon
        self.most = 0.0
        self.over = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        counter, edge = 0, http.client.HTTPConnection(self.daemon_.http.removeprefix("http://"), timeout=20)
        while not self.over.is_set():
            began = time.perf_counter()
            edge.request("GET", "/")
            edge.getresponse().read()
            self.waits.append(time.perf_counter() - began)
            counter += 1
            if counter % 200 == 0:
                assert self.daemon_.process is not None
                pids = [self.daemon_.process.pid, *(pid for role in ROLES for pid in self.daemon_.pids(role))]
                self.most = max(self.most, sum(pss_mb(pid) for pid in pids))
            self.over.wait(0.002)

    def p99_ms(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)] * 1000

    def finish(self) -> None:
        self.over.set()
        self.join()


def main(seconds: int) -> None:
    """On the Engine that answers, else on one of our own."""
    address, own = dockerd.answering(), None
    if address is None:
        own = dockerd.start_own()
        if own is None:
            print("logs: left out, as no Docker Engine answers and none can be started here")
            return
        address = own.address
    try:
        run(address, seconds)
    finally:
        if own is not None:
            own.stop()


def run(address: str, seconds: int) -> None:
    engine = docker.APIClient(base_url=address, timeout=120)
    image = images.test_app(address)
    with tempfile.TemporaryDirectory() as name:
        again = "while [ ! -s /tmp/go ]; do sleep 0.05; done; s=$(cat /tmp/go); rm /tmp/go; "
        flood = f"exec python3 -c {shlex.quote(FLOOD)} $s"
        loop = f"while true; do {again} ({flood}); done"
        config = {
            "engine": "docker",
            "logs": {"rotate": {"size": "4GiB", "files": 2}, "retain": {"days": 7, "bytes": "8GiB"}},
            "apps": {
                "shop": {
                    "image": image,
                    "domains": ["*"],
                    "processes": {
                        "web": {"command": ["python3", "-c", WEB]},
                        "flood": {"command": ["sh", "-c", loop], "stop_grace": "1s"},
                    },
                }
            },
        }
        daemon = Daemon(Path(name), config)
        try:
            daemon.start()
            daemon.wait_ready()
            measure(daemon, engine, seconds)
        finally:
            identity = json.loads((daemon.state / "state" / "daemon.json").read_text())["data"]["id"]
            daemon.close()
            dockerd.remove_all(address, identity)
            engine.close()


def measure(daemon: Daemon, engine: docker.APIClient, seconds: int) -> None:
    (container,) = [row["id"] for row in daemon.containers().values() if row["process"] == "flood"]
    quiet = Watcher(daemon)
    quiet.start()
    time.sleep(max(2, seconds / 3))
    quiet.finish()
    short = max(3, seconds // 4)
    alone = frozen(daemon, engine, container, short)
    basic = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    url = daemon.admin.replace("http://", "ws://") + "/api/v1/ws"
    subscriber = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, url, basic], stdout=subprocess.PIPE, text=True)
    assert subscriber.stdout is not None
    assert subscriber.stdout.readline() == "ready\n"
    (log_process,) = daemon.pids("logs")
    assert daemon.process is not None
    before = cpu(log_process), cpu(daemon.process.pid)
    busy = Watcher(daemon)
    busy.start()
    began = time.monotonic()
    go(engine, container, seconds)
    told = json.loads(subscriber.stdout.readline())
    live = time.monotonic() - began
    busy.finish()
    used = cpu(log_process) - before[0], cpu(daemon.process.pid) - before[1]
    before_it, written = ends(daemon, 2)
    numbers = [int(line.split(" line ")[1][:9]) for line in lines(daemon.state, container) if " line " in line]
    numbers = numbers[before_it:]
    lost = written - len(numbers) if numbers == list(range(written)) else "not in order"
    print(f"a flood of {seconds} s: {written:,} lines, {written / seconds:,.0f} a second")
    print(f"  in the store: {len(numbers):,}, lost or out of order: {lost}")
    print(f"  at the live subscriber: {told['count']:,}, gaps: {told['gaps']}, the last after {live:.1f} s")
    print(f"  CPU a line: log process {used[0] / written * 1e6:.2f} µs, daemon {used[1] / written * 1e6:.2f} µs")
    print(f"  memory of our processes together: at most {busy.most:.0f} MB (PSS)")
    print(
        f"  p99 of another app's answers: {quiet.p99_ms():.2f} ms at rest, {alone:.2f} ms in a flood that nobody reads, "
        f"{busy.p99_ms():.2f} ms meanwhile"
    )
    store = daemon.state / "logs" / "store"
    print(f"  stored: {sum(each.stat().st_size for each in store.iterdir()) / (before_it + written):.2f} bytes a line")
    beside_docker_logs(daemon, engine, container, short)
    queries(daemon, container)


def frozen(daemon: Daemon, engine: docker.APIClient, container: str, seconds: int) -> float:
    """What a flood alone does to another app's visitors: the log process stands still meanwhile."""
    (log_process,) = daemon.pids("logs")
    os.kill(log_process, signal.SIGSTOP)
    watcher = Watcher(daemon)
    watcher.start()
    go(engine, container, seconds)
    until(lambda: flooding(engine, container), 30, "the flood")
    until(lambda: not flooding(engine, container), 120, "its end")
    watcher.finish()
    os.kill(log_process, signal.SIGCONT)
    ends(daemon, 1)
    return watcher.p99_ms()


def flooding(engine: docker.APIClient, container: str) -> bool:
    return any(row[-1] == "python3" for row in engine.top(container, ps_args="-eo pid,comm")["Processes"])


def go(engine: docker.APIClient, container: str, seconds: float) -> None:
    script = f"echo {seconds} > /tmp/go"
    engine.exec_start(engine.exec_create(container, ["sh", "-c", script])["Id"])


def ends(daemon: Daemon, count: int) -> list[int]:
    def found() -> list[int]:
        items = daemon.api("/api/v1/logs?q=/^end/&process=flood")["items"]
        return [int(row["message"].split()[1]) for row in items] if len(items) == count else []

    return until(found, 120, "the end of the flood in the store")  # type: ignore[no-any-return]


def beside_docker_logs(daemon: Daemon, engine: docker.APIClient, container: str, seconds: int) -> None:
    """Another flood, with `docker logs -f` reading along."""
    command = ["docker", "logs", "-f", "--tail", "0", container]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        counter = subprocess.Popen(["wc", "-l"], stdin=reader.stdout, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        began = time.monotonic()
        go(engine, container, seconds)
        written = ends(daemon, 3)[2]
        ours = time.monotonic() - began
        reader.kill()
        theirs = int(counter.communicate()[0])
    print(f"another flood, with `docker logs -f` beside: {written:,} lines")
    print(
        f"  stored {written / ours:,.0f} a second; `docker logs -f` read {theirs / ours:,.0f} a second: {written / max(1, theirs):.1f} times as many"
    )


def queries(daemon: Daemon, container: str) -> None:
    total = sum(1 for _ in lines(daemon.state, container))
    print(f"queries over {total:,} stored lines, the first page, seconds:")
    wanted = {
        "the newest 100": "",
        "the oldest 100": "order=oldest",
        "level=error": "level=error",
        "text that is once there": "q=line%20000000042%20",
        "text that is nowhere": "q=nowhere-to-be-found",
        "a regular expression that is nowhere": "q=/user%3D42.*nowhere/",
        "a regular expression with few hits": "q=/line%2000000[0-9]777%20.*user/",
    }
    daemon.api("/api/v1/logs?limit=1")
    for what, query in wanted.items():
        began = time.monotonic()
        found = daemon.api(f"/api/v1/logs?process=flood&{query}")
        print(
            f"  {what}: {time.monotonic() - began:.2f} ({len(found['items'])} found, {'more' if found['next'] else 'all'})"
        )
    with tempfile.NamedTemporaryFile() as file:
        began = time.monotonic()
        subprocess.run(f"docker logs {container} > {file.name} 2>&1", shell=True, check=True)
        print(f"  `docker logs > FILE`: {time.monotonic() - began:.2f}")
        for what, pattern in (("grep -F", ["-F", "nowhere-to-be-found"]), ("grep -E", ["-E", "user=42.*nowhere"])):
            began = time.monotonic()
            subprocess.run(["grep", *pattern, file.name], stdout=subprocess.DEVNULL, check=False)
            print(
                f"  `{what}` over that file ({Path(file.name).stat().st_size / 1e9:.2f} GB): {time.monotonic() - began:.2f}"
            )


if __name__ == "__main__":
    main(3 if "--short" in sys.argv else 30)
