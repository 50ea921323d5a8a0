"""What reading the figures of containers costs: 10, 50 and 100 real containers, each figure read as the daemon reads it:
`python tests/bench/stats.py`."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "ground")]

import docker
import dockerd
import images

from ndactors.adapters.bound_sockets import BoundSockets
from ndactors.adapters.cgroups import Cgroups
from ndactors.adapters.container_statistics import ContainerStatistics
from ndactors.adapters.docker_engine import DockerEngine
from ndactors.adapters.host_statistics import HostStatistics, host_memory
from ndactors.adapters.process_table import ProcessTable
from ndactors.core.sampling import container_figures, host_figures
from ndactors.messages.metrics import Sample, Sampled

SIZES, READINGS = (10, 50, 100), 40
INTERVAL = 5.0


def samples(source: str, figures: list) -> Sampled:
    rows = tuple(Sample(name=f.name, kind=f.kind, labels=f.labels, value=f.value) for f in figures)
    return Sampled(source=source, at=time.time(), samples=rows)


def measure(engine: DockerEngine, readings: int) -> tuple[int, float, float, float]:
    """Containers read, and CPU milliseconds of one reading: of containers, of the host, of ports."""
    table, memory = ProcessTable(), host_memory()
    usage = ContainerStatistics(Cgroups(host_memory=memory), table, engine=engine, host_memory=memory)
    host, sockets = HostStatistics(table), BoundSockets(Path("/nowhere"), table)
    listed = {"docker": engine.containers()}
    for _ in range(4):  # finding groups and owners is once only
        found = usage.read(listed)
        sockets.look()
    assert len(found) == len(listed["docker"]), "not every container could be read"
    assert all(row.source == "cgroup" for row in found)
    spent = [0.0, 0.0, 0.0]
    for _ in range(readings):
        table.look(0.0)  # warm: the pass itself is counted with the host
        began = time.process_time()
        samples("containers", container_figures(usage.read(listed)))
        spent[0] += time.process_time() - began
        began = time.process_time()
        table.look(-1.0)
        samples("host", host_figures(host.read()[0], 1))
        spent[1] += time.process_time() - began
        began = time.process_time()
        sockets.look()
        spent[2] += time.process_time() - began
    one, two, three = (seconds / readings * 1000 for seconds in spent)
    return len(found), one, two, three


def main() -> None:
    """On the Engine that answers, else on one of our own."""
    address, own = dockerd.answering(), None
    if address is None:
        own = dockerd.start_own()
        if own is None:
            print("statistics: left out, as no Docker Engine answers and none can be started here")
            return
        address = own.address
    try:
        run(address, short="--short" in sys.argv)
    finally:
        if own is not None:
            own.stop()


def run(address: str, *, short: bool) -> None:
    sizes, readings = (SIZES[:1], 5) if short else (SIZES, READINGS)
    image, owner = images.busybox(address), f"bench{secrets.token_hex(6)}"
    client = docker.APIClient(base_url=address, timeout=120)
    try:
        with tempfile.TemporaryDirectory() as folder:
            engine = DockerEngine(Path(folder), owner, base_url=address)
            print(f"CPU of one reading, mean of {readings}; the share is of one core at an interval of {INTERVAL:g} s")
            made = 0
            for size in sizes:
                for number in range(made, size):
                    labels = {"nextdeploy.daemon": owner, "nextdeploy.app": "shop", "nextdeploy.process": "web"}
                    container = client.create_container(
                        image, ["sleep", "3600"], name=f"nd-{owner}-{number}", labels=labels
                    )
                    client.start(container["Id"])
                made = size
                count, containers, host, ports = measure(engine, readings)
                share = (containers + host + ports) / 1000 / INTERVAL * 100
                print(
                    f"  {count:3} containers: {containers:6.2f} ms for them ({containers / count * 1000:.0f} µs each), "
                    f"{host:5.2f} ms host, {ports:5.2f} ms ports; {share:.2f} % ({os.cpu_count()} cores here)"
                )
            engine.close()
    finally:
        client.close()
        dockerd.remove_all(address, owner)


if __name__ == "__main__":
    main()
