"""The whole system on a real Engine under load: kills, freezes, restarts. No request may notice."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request

from daemon import until


def restarts(daemon, name):
    return daemon.containers()[name]["restart_reasons"]


def test_a_killed_container_is_replaced_and_nobody_notices(on_docker, load, docker_client):
    daemon = on_docker()
    sending = load(daemon.http)
    time.sleep(1)
    victim = daemon.containers()["nd-shop-web-1-1"]
    docker_client.kill(victim["id"], "SIGKILL")
    until(lambda: restarts(daemon, "nd-shop-web-1-1") == {"exit": 1}, what="the restart")
    until(lambda: daemon.containers()["nd-shop-web-1-1"]["routed"], what="traffic again")
    time.sleep(1)
    result = sending.stop()
    assert result["failed"] == 0, result
    assert result["sent"] > 300
    died = daemon.events("container.died")[0]
    assert died["container"] == "nd-shop-web-1-1"
    assert died["reason"] == "exited 137 (SIGKILL)"
    assert daemon.events("container.restarted")[0]["reason"] == "exited 137 (SIGKILL)"


def test_a_frozen_container_is_ejected_and_later_restarted(on_docker, load, docker_client):
    daemon = on_docker(timeouts={"response": "20s"})
    victim = daemon.containers()["nd-shop-web-1-1"]
    docker_client.pause(victim["id"])
    until(lambda: daemon.containers()["nd-shop-web-1-1"]["health"] == "unhealthy", what="the ejection")
    sending = load(daemon.http)
    until(lambda: restarts(daemon, "nd-shop-web-1-1") == {"unhealthy": 1}, 30, "the restart")
    until(lambda: daemon.containers()["nd-shop-web-1-1"]["state"] == "running", 30, "health")
    time.sleep(0.5)
    result = sending.stop()
    assert result["failed"] == 0, result
    assert daemon.events("container.unhealthy")[0]["container"] == "nd-shop-web-1-1"


def test_a_killed_daemon_leaves_everything_running_and_the_next_one_adopts_it(on_docker, load):
    daemon = on_docker()
    before = {name: row["id"] for name, row in daemon.containers().items()}
    edge = daemon.pids("edge"), daemon.pids("edge-worker"), daemon.pids("logs")
    sending = load(daemon.http)
    time.sleep(1)
    http = daemon.http
    daemon.kill()
    time.sleep(2)
    daemon.start()
    daemon.wait_ready()
    time.sleep(1)
    result = sending.stop()
    assert result["failed"] == 0, result
    assert {name: row["id"] for name, row in daemon.containers().items()} == before
    assert (daemon.pids("edge"), daemon.pids("edge-worker"), daemon.pids("logs")) == edge
    assert daemon.http == http
    assert not any(row["restarts"] for row in daemon.containers().values())


def test_a_killed_edge_worker_is_replaced_without_any_daemon(on_docker):
    daemon = on_docker()
    daemon.kill()
    victims = daemon.pids("edge-worker")
    assert len(victims) == 2
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(daemon.pids("edge-worker")) - set(victims)) == 2, what="new workers")

    def answer():
        with urllib.request.urlopen(f"{daemon.http}/", timeout=5) as response:
            return response.status

    assert until(answer) == 200
    daemon.start()
    daemon.wait_ready()
    assert daemon.api("/api/v1/status")["edge"]["restarts"] == 2


def test_a_killed_edge_master_is_replaced_by_the_daemon(on_docker):
    daemon = on_docker()
    (master,) = daemon.pids("edge")
    # its port was free to choose; the next one takes another
    os.kill(master, signal.SIGKILL)
    until(lambda: daemon.pids("edge") and daemon.pids("edge") != [master], what="a new edge")
    address = until(
        lambda: (e := daemon.api("/api/v1/status")["edge"]) and e["pid"] != master and e["workers"] and e["http"][0]
    )

    def answer():
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as response:
            return response.status

    assert until(answer) == 200


def test_a_reload_rolls_and_nobody_notices_and_a_broken_file_changes_nothing(on_docker, load):
    daemon = on_docker()
    sending = load(daemon.http)
    daemon.config["apps"]["shop"]["env"] = {"VERSION": "2"}
    daemon.write()
    daemon.signal(signal.SIGHUP)
    until(lambda: set(daemon.containers()) == {"nd-shop-web-2-1", "nd-shop-web-2-2"}, 60, "the new version")
    daemon.wait_ready()
    with urllib.request.urlopen(f"{daemon.http}/", timeout=5) as response:
        assert json.loads(response.read())["version"] == "2"
    (daemon.folder / "nextdeploy.yml").write_text("apps: {shop: {prot: 1}}\n")
    daemon.signal(signal.SIGHUP)
    refused = until(lambda: daemon.events("config.refused"), what="the refusal")
    assert "Unknown key; did you mean `port`?" in refused[0]["reason"]
    result = sending.stop()
    assert result["failed"] == 0, result
    assert set(daemon.containers()) == {"nd-shop-web-2-1", "nd-shop-web-2-2"}


def test_a_version_that_does_not_work_is_refused(on_docker, load):
    daemon = on_docker(deploy={"timeout": "20s"})
    sending = load(daemon.http)
    daemon.config["apps"]["shop"]["env"] = {"EXIT_AT_START": "3"}
    daemon.write()
    daemon.signal(signal.SIGHUP)
    failed = until(lambda: daemon.events("deploy.failed"), 60, "the refusal")
    assert "exited 3" in failed[0]["reason"]
    until(lambda: set(daemon.containers()) == {"nd-shop-web-1-1", "nd-shop-web-1-2"}, 30, "the old version alone")
    result = sending.stop()
    assert result["failed"] == 0, result


def test_containers_are_as_the_contract_says(on_docker, docker_client):
    daemon = on_docker(
        processes={"web": {}, "worker": {"command": "sleep 600"}}, resources={"memory": "64MiB", "cpus": 0.5}
    )
    rows = daemon.containers()
    assert set(rows) == {"nd-shop-web-1-1", "nd-shop-web-1-2", "nd-shop-worker-1-1"}
    facts = docker_client.inspect_container(rows["nd-shop-web-1-1"]["id"])
    own = facts["Config"]["Labels"]
    for label in ("project", "app", "process", "revision", "role", "replica", "config", "daemon"):
        assert own.get(f"nextdeploy.{label}"), label
    host = facts["HostConfig"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert host["Init"] is True
    assert "no-new-privileges" in host["SecurityOpt"]
    assert set(host["CapDrop"]) == {"NET_RAW", "MKNOD"}
    assert (host["PidsLimit"], host["Memory"], host["NanoCpus"]) == (256, 64 * 1024 * 1024, 500_000_000)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": str(50 * 1024 * 1024), "max-file": "3"}}
    assert not host["PortBindings"]
    exec_id = docker_client.exec_create(rows["nd-shop-worker-1-1"]["id"], ["wget", "-q", "-O-", "http://shop:8000/"])[
        "Id"
    ]
    assert b'"path": "/"' in docker_client.exec_start(exec_id), "app names resolve on the project's network"


def test_it_touches_nothing_it_did_not_label(on_docker, docker_client, test_image):
    made = docker_client.create_container(
        test_image, name=f"stranger-{time.time_ns()}", labels={"nextdeploy.app": "shop"}
    )
    docker_client.start(made["Id"])
    try:
        daemon = on_docker()
        daemon.stop()
        facts = docker_client.inspect_container(made["Id"])
        assert facts["State"]["Running"]
        assert len([r for r in docker_client.containers() if r["Id"] == made["Id"]]) == 1
    finally:
        docker_client.remove_container(made["Id"], force=True)


def test_containers_stay_when_the_daemon_stops(on_docker, docker_client):
    daemon = on_docker()
    ids = [row["id"] for row in daemon.containers().values()]
    assert daemon.stop() == 0
    assert daemon.pids("edge") == []
    assert all(docker_client.inspect_container(id)["State"]["Running"] for id in ids)
    daemon.start("--stop-apps")
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert not any(docker_client.inspect_container(id)["State"]["Running"] for id in ids)
    daemon.start()
    daemon.wait_ready()
    assert [(row["id"], row["restarts"]) for row in daemon.containers().values()] == [(id, 0) for id in ids]
