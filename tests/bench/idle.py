"""What an idle system costs: memory (PSS) and CPU of all our processes with ten idle apps:
`python tests/bench/idle.py`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
APPS, SECONDS, SETTLE_SECONDS = 10, 30, 20


def ours(state: str) -> dict[int, str]:
    """Our processes by role."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            role = next((w.partition("=")[2] for w in words if w.startswith("--role=")), "")
            if role and f"--state-dir={state}" in words:
                found[int(entry.name)] = role
    return found


def pss_mb(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


def cpu(pid: int) -> float:
    """Seconds, of all its threads, also those that ended: its CPU clock, see clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def measure(processes: dict[int, str], seconds: float) -> None:
    before = {pid: cpu(pid) for pid in processes}
    time.sleep(seconds)
    memory = share = 0.0
    for pid, role in sorted(processes.items(), key=lambda row: row[1]):
        used = (cpu(pid) - before[pid]) / seconds * 100
        memory, share = memory + pss_mb(pid), share + used
        print(f"  {role:12} {pss_mb(pid):5.1f} MB PSS  {used:5.2f} % of a core")
    print(f"  {'together':12} {memory:5.1f} MB PSS  {share:5.2f} % of a core")


def ask_once(control: Path) -> None:
    for path in ("/api/v1/apps", "/metrics"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(control))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n".encode())
            if b" 200 " not in sock.makefile("rb").readline():
                raise SystemExit(f"{path} did not answer")


def main() -> None:
    seconds = 3 if "--short" in sys.argv else SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apps = {
            f"app{n}": {"command": "exec python3 -m http.server $PORT --bind 127.0.0.1", "domains": [f"{n}.test"]}
            for n in range(APPS)
        }
        config = {
            "version": "1.0",
            "state_dir": f"{folder}/state",
            "engine": "process",
            "edge": {"http": "127.0.0.1:0", "workers": 1},
            "admin": {"listen": "127.0.0.1:0"},
            "apps": apps,
        }
        (folder / "nextdeploy.yml").write_text(yaml.safe_dump(config))
        with (folder / "out").open("wb") as out:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "ndactors", f"--config={folder}/nextdeploy.yml"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "NEXTDEPLOY_ADMIN_PASSWORD": "idle"},
                cwd=folder,
            )
        try:
            deadline = time.monotonic() + 60
            while (folder / "out").read_text().count('"event": "deploy.succeeded"') < APPS:
                if time.monotonic() > deadline or daemon.poll() is not None:
                    raise SystemExit((folder / "out").read_text()[-3000:])
                time.sleep(0.1)
            time.sleep(SETTLE_SECONDS if seconds == SECONDS else 2)  # what starting costs is over
            processes = {daemon.pid: "daemon", **ours(f"{folder}/state")}
            print(f"idle with {APPS} apps on the process engine, health checks every 2 s, over {seconds} s")
            measure(processes, seconds)
            ask_once(folder / "state/control.sock")
            print("the same once the API was asked for its apps and its metrics")
            measure(processes, seconds)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(70)


if __name__ == "__main__":
    main()
