"""Actors beside pykka on the same work, in one run: `python tests/bench/actors.py`. CPU time, not wall time; each
figure is the best of several rounds taken in turn, because other work on the machine only ever makes one slower."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time

ROUNDS = 5
TELLS = 200_000
ASKS = 20_000
IDLE = 10_000


def ours() -> dict[str, float]:
    import gevent
    import psutil

    from ndactors.runtime.actor import Actor
    from ndactors.runtime.ref import Ref
    from ndactors.runtime.root import Root
    from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

    class Counter(Actor):
        def __init__(self) -> None:
            self.count = 0

        def receive(self, message: object) -> int:
            self.count += 1
            return self.count

    ref = Ref("counter", capacity=TELLS + 1)
    root = Root(Child(supervisor_ref("root"), Supervisor, [Child(ref, Counter)]))
    assert root.wait_started(5)
    began = time.process_time()
    for number in range(TELLS):
        ref.tell(number)
        if not number % 1000:
            gevent.sleep(0)
    ref.ask(None)
    tell = TELLS / (time.process_time() - began)
    began = time.process_time()
    for number in range(ASKS):
        ref.ask(number)
    ask = ASKS / (time.process_time() - began)
    assert ref.ask(None) == TELLS + ASKS + 2

    gc.collect()
    refs = [Ref(f"idle:{number}") for number in range(IDLE)]
    crowd = Root(Child(supervisor_ref("crowd"), Supervisor, [Child(each, Counter) for each in refs]))
    assert crowd.wait_started(60)
    assert all(each.state == "running" for each in refs)
    memory = psutil.Process().memory_info().rss
    root.stop(5)
    return {"tell": tell, "ask": ask, "idle_mb": memory / 1e6}


def theirs() -> dict[str, float]:
    import pykka

    class Counter(pykka.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_receive(self, message: object) -> int:
            self.count += 1
            return self.count

    ref = Counter.start()
    began = time.process_time()
    for number in range(TELLS):
        ref.tell(number)
    ref.ask(None)
    tell = TELLS / (time.process_time() - began)
    began = time.process_time()
    for number in range(ASKS):
        ref.ask(number)
    ask = ASKS / (time.process_time() - began)
    assert ref.ask(None) == TELLS + ASKS + 2
    ref.stop()
    return {"tell": tell, "ask": ask}


def measure(which: str) -> dict[str, float]:
    output = subprocess.run([sys.executable, __file__, which], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output))


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in ("ours", "theirs"):
        print(json.dumps(ours() if sys.argv[1] == "ours" else theirs()))
        return
    rounds = 1 if "--short" in sys.argv else ROUNDS
    pairs = [(measure("ours"), measure("theirs")) for _ in range(rounds)]
    for what in ("tell", "ask"):
        mine, other = max(a[what] for a, _ in pairs), max(b[what] for _, b in pairs)
        print(f"{what}: {mine:,.0f}/s, pykka {other:,.0f}/s, {mine / other:.1f} times (messages per second of CPU)")
    print(f"{IDLE:,} idle actors: {max(a['idle_mb'] for a, _ in pairs):.0f} MB resident, interpreter included")


if __name__ == "__main__":
    main()
