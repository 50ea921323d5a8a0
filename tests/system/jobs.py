"""A daemon that has nothing but jobs: ``python jobs.py GROUND ADDRESS FOLDER DAEMON IMAGE SPEED``. Commands come as JSON
lines on stdin, everything that is told goes out as JSON lines. Schedules go by a clock that is SPEED times too fast."""

from gevent import monkey

monkey.patch_all()

import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
from gevent.fileobject import FileObject
from gevent.hub import get_hub

from ndactors.actors import job
from ndactors.actors.inventory import InventoryActor
from ndactors.actors.job import JobsActor, JobsSurroundings
from ndactors.adapters.docker_engine import DockerEngine
from ndactors.adapters.job_output import ContainerOutputs
from ndactors.adapters.process_engine import ProcessEngine
from ndactors.adapters.state_files import StateFiles
from ndactors.core.jobs import job_spec
from ndactors.core.model import App, Process, Rotate
from ndactors.core.specs import Owner
from ndactors.messages.jobs import CancelJob, JobSettings, RunJob
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


class Printer(Actor):
    def __init__(self, what: str) -> None:
        self._what = what

    def receive(self, message):
        row = {"to": self._what, "type": type(message).__name__, **msgspec.to_builtins(message)}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def main(ground: str, address: str, folder: str, daemon: str, image: str, speed: str) -> None:
    logging.basicConfig(level=logging.INFO)
    state = Path(folder)
    engine = DockerEngine(state, daemon, base_url=address) if ground == "docker" else ProcessEngine(state, daemon)
    apps, events, deploy = Ref("apps"), Ref("events"), Ref("deploy")
    inventory, jobs = Ref("engine"), Ref("jobs")
    began = time.time()
    job.LOOK_SECONDS = 30.0 / float(speed) ** 2
    owner = Owner(project="jobs", daemon=daemon)
    around = JobsSurroundings(
        engine=engine,
        inventory=inventory,
        apps=apps,
        events=events,
        state=StateFiles(state / "state", lambda kind, words: None),
        outputs=ContainerOutputs(engine if ground == "docker" else None, lambda c: get_hub().threadpool.apply(c)),
        make_spec=partial(job_spec, owner=owner, engine=ground, rotate=Rotate(size=1_000_000, files=3)),
        now=lambda: began + (time.time() - began) * float(speed),
    )
    root = Root(
        Child(
            supervisor_ref("root"),
            Supervisor,
            [
                *(Child(ref, Printer, ref.name) for ref in (apps, events, deploy)),
                Child(inventory, InventoryActor, engine, events, apps, Ref("logs")),
                Child(jobs, JobsActor, "shop", around),
            ],
            Strategy.REST_FOR_ONE,
            Intensity(None),
        )
    )
    for line in FileObject(sys.stdin.buffer, "rb"):
        command = json.loads(line)
        if "cancel" in command:
            jobs.tell(CancelJob(key=command["cancel"]))
            continue
        rows = {name: msgspec.convert({"name": name, **row}, Process) for name, row in command["processes"].items()}
        app = App(name="shop", image=image if ground == "docker" else None, processes=rows)
        if "run" in command:
            one = {"revision": 3, "kind": "release", "operation": "op1", "timeout": None, **command["run"]}
            process = rows[one.pop("process")]
            jobs.tell(RunJob(**one, process=process, app=app, reply_to=deploy))
        else:
            jobs.tell(JobSettings(app=app if command["active"] else None, revision=3))
    root.stop(10)


if __name__ == "__main__":
    main(*sys.argv[1:])
