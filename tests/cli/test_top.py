import json

from ndactors.cli.top import lines

HOST = {
    "cpu_percent": 12.4, "cpus": 2, "load": [0.5, 0.25, 0.1], "memory_used": 1 << 30, "memory_total": 4 << 30, "swap_used": 0,
    "swap_total": 1 << 30, "disks": {"/": [90, 100]}, "pressure": {"cpu": [3.0, None], "io": [0.4, 0.1]},
}  # fmt: skip
WEB = {
    "name": "nd-shop-web-1-1",
    "app": "shop",
    "process": "web",
    "state": "running",
    "cpu": 7.2,
    "memory": 5 << 20,
    "uptime": 60,
}


def look(at=0.0, host=HOST, containers=(), **busy):
    actors = [{"name": name, "busy_seconds": seconds, "mailbox": 2, "restarts": 1} for name, seconds in busy.items()]
    return {"at": at, "host": host, "containers": list(containers), "actors": actors}


def test_the_machine_its_containers_and_the_busiest_actors():
    text = "\n".join(lines(look(containers=[WEB], apps=3.25, logs=0.5), None))
    assert "cpu 12 % of 2 cores, load 0.50 0.25 0.10, memory 1.0 GiB of 4.0 GiB, swap 0 B of 1.0 GiB" in text
    assert "disks / 90 % of 100 B" in text
    assert "somebody waited for cpu 3 %, io 0 % of the last 10 s" in text
    assert "nd-shop-web-1-1" in text and "5.0 MiB" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["ACTOR", "BUSY", "s", "WAITING", "RESTARTS"] in rows
    assert rows.index(["apps", "3.2", "2", "1"]) < rows.index(["logs", "0.5", "2", "1"])


def test_between_two_looks_it_is_a_share():
    text = "\n".join(lines(look(at=12.0, apps=3.5, new=0.2), look(at=10.0, apps=3.0)))
    assert "BUSY %" in text
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["apps", "25.0"] in rows and ["new", "10.0"] in rows


def test_a_daemon_that_was_restarted_meanwhile():
    text = "\n".join(lines(look(at=12.0, apps=0.1), look(at=10.0, apps=300.0)))
    assert ["apps", "5.0"] in [line.split()[:2] for line in text.splitlines()]


def test_only_some_are_shown():
    text = lines(look(**{f"a{n}": float(n) for n in range(20)}), None)
    assert sum(line.startswith("a") for line in text) == 5 and any(line.startswith("a19 ") for line in text)


def test_who_may_see_no_host_sees_containers():
    assert lines({"at": 0.0, "host": None, "containers": [], "actors": []}, None) == ["no containers"]


def test_a_real_daemon(at_real, process):
    text = process("top", "--once").out
    assert text.startswith("cpu ") and "shop/web" in text
    rows = [line.split() for line in text.splitlines()]
    actors = rows[rows.index(["ACTOR", "BUSY", "s", "WAITING", "RESTARTS"]) + 1 :]
    assert len(actors) == 5 and float(actors[0][1]) >= float(actors[-1][1])
    told = json.loads(process("top", "shop", "--json").out)
    assert told["containers"] and {"name", "busy_seconds", "mailbox"} <= told["actors"][0].keys()
