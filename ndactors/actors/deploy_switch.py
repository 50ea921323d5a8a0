"""The switch of a deployment: the AppActor runs the new revision, a canary is judged on the way, a failure explained."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..core.canary import Sample, judge, slow_above
from ..errors import EngineError, NextDeployError
from ..messages.containers import (
    AbandonRevision,
    RevisionFailing,
    RevisionRefused,
    RevisionSettled,
    RunRevision,
)
from ..messages.deployments import (
    Pending,
    begun,
)
from ..messages.queries import ContainerView
from ..messages.records import SETTLE_SECONDS, GetTraffic, Traffic
from .deploy_work import Diagnosed, diagnose
from .deploying import Deploying

LOOK_SECONDS = 1.0
"""How often a canary is judged."""
CANCELLED = "cancelled"
NONE = Sample(0, 0)


class LookDue: ...


@dataclass(frozen=True)
class Looked:
    old: Sample
    new: Sample


class Switching(Deploying):
    # -- the switch --------------------------------------------------------------------------------

    def _switch(self) -> None:
        """Let the AppActor run it. On record first, so that whoever comes after knows what was tried."""
        pending = self._pending()
        self._around.ledger.save_revision(self._revision(pending, "pending"))
        if pending.kind in ("deploy", "rollback"):
            self._event("deploy.started", f"revision {pending.number}", {"revision": pending.number})
        self._step("start", "running")
        self._show(pending.target, f"starting revision {pending.number}")
        self._around.app.tell(
            RunRevision(
                app=pending.target, revision=pending.number, configs=pending.configs, canary=self._canary_share(pending)
            )
        )

    def _canary_share(self, pending: Pending) -> float | None:
        """None once it gets everything, or if it is no canary."""
        deploy = pending.target.deploy
        steps = [step for step in deploy.canary.steps if step < 100]
        is_canary = deploy.strategy == "canary" and pending.kind in ("deploy", "rollback", "env", "secrets")
        # where nothing that visitors get changes, there is nothing to compare
        is_canary = is_canary and pending.configs.get("web") != self._record.configs.get("web")
        if not is_canary or self._record.live is None or pending.stage >= len(steps):
            return None
        return float(steps[pending.stage])

    def _serves(self, revision: int) -> None:
        if self._on_revision(revision):
            self._step("start", "succeeded", "all are up and get requests")
            self._step("drain", "running")

    def _settled(self, message: RevisionSettled) -> None:
        if not self._on_revision(message.revision):
            self._late_success(message.revision)
            return
        self._end_look()
        self._step("start", "succeeded", "all are up and get requests")
        drained = f"{message.websockets} WebSockets drained" if message.websockets else ""
        self._step("drain", "succeeded", drained)
        self._outcome("succeeded", "", websockets=message.websockets)
        self._count_soon()

    def _late_success(self, revision: int) -> None:
        """Nobody waits for it any more: a first version that came up after all, or one that was superseded too late."""
        record, known = self._record, self._around.ledger.revision(self._name, revision)
        if revision == record.number:
            if known is not None and known.state == "refused":
                self._around.ledger.save_revision(replace(known, state="current", reason=""))
            if record.unproven:
                self._record = replace(record, unproven=False)
                self._save()
                if record.live is not None and record.pending is None:
                    self._show(record.live)
        elif record.live is not None:
            again = RunRevision(app=record.live, revision=record.number, configs=record.configs)
            self._around.app.tell(again)

    def _failing(self, message: RevisionFailing) -> None:
        if not self._on_revision(message.revision):
            self._around.app.tell(AbandonRevision(revision=message.revision, reason="nobody waits for it any more"))
            return
        around, view = self._around, message.container
        self._end_look()
        self._busy(
            lambda: diagnose(around.container_engine, around.listeners, view),
            lambda done, error: dataclasses.replace(
                done if error is None else Diagnosed(_words(error, view)), revision=message.revision
            ),
        )

    def _diagnosed(self, done: Diagnosed) -> None:
        if not self._on_revision(done.revision):
            return
        self._work = None
        pending = self._pending()
        if done.tail:
            self._log(pending.operation, "its last lines:\n" + "".join(f"    {line}\n" for line in done.tail))
        self._around.app.tell(AbandonRevision(revision=pending.number, reason=done.reason))

    def _refused(self, message: RevisionRefused) -> None:
        if not self._on_revision(message.revision):
            return
        self._end_look()
        if self._work is not None:
            self._work.cancel()
            self._work = None
        pending = self._pending()
        cancelled = message.reason.startswith(CANCELLED)
        self._step("start", "failed", message.reason)
        self._outcome("cancelled" if cancelled else "failed", message.reason, websockets=message.websockets)
        self._log(pending.operation, f"revision {message.revision}: {message.reason}\n")
        self._count_soon()

    # -- a canary ----------------------------------------------------------------------------------

    def _holding(self, revision: int, canaries: tuple[str, ...]) -> None:
        if not self._on_revision(revision):
            return
        pending = self._pending()
        # one that is gone by now was one of them all the same
        self._canaries = tuple(sorted({*self._canaries, *canaries}))
        if pending.phase != "canary" or self._timer is None:
            self._record = begun(self._record, replace(pending, phase="canary"))
            self._save()
            self._stage_began = time.time()
            self._step("start", "succeeded", f"{len(canaries)} up beside the old version")
            self._step(self._stage_name(), "running")
            self._timer = self.after(LOOK_SECONDS, LookDue())

    def _stage_name(self) -> str:
        share = self._canary_share(self._pending())
        return f"canary {share:g} %"

    def _look(self) -> None:
        pending, around, name = self._pending(), self._around, self._name
        since, until = self._stage_began, time.time() - SETTLE_SECONDS
        canaries, settings = self._canaries, pending.target.deploy.canary

        def work() -> Looked:
            query = GetTraffic(app=name, since=since, until=max(since, until))
            found = around.traffic(query)
            old = _sample([row for id, row in found.containers.items() if id and id not in canaries])
            limit = slow_above(settings, old)
            if limit is not None:
                found = around.traffic(replace(query, over_ms=limit))
            return Looked(old, _sample([row for id, row in found.containers.items() if id in canaries]))

        self._busy(work, lambda done, error: done if error is None else unless_unanswered(error, Looked(NONE, NONE)))

    def _judge(self, old: Sample, new: Sample) -> None:
        self._work = None
        pending = self._record.pending
        if pending is None or pending.phase != "canary" or pending.outcome is not None or self._timer is None:
            return
        settings = pending.target.deploy.canary
        held = time.time() - self._stage_began
        verdict = judge(settings, old, new, held)
        name = self._stage_name()
        if verdict.what == "wait":
            self._step(name, "running", f"{new.requests} requests, {new.failed} failed; {verdict.reason}")
            self._timer = self.after(LOOK_SECONDS, LookDue())
            return
        evidence = {
            "stage": name,
            "verdict": verdict.what,
            "reason": verdict.reason,
            "seconds": round(held, 1),
            "old": {"requests": old.requests, "failed": old.failed, "p95_ms": old.p95_ms},
            "new": {"requests": new.requests, "failed": new.failed, "p95_ms": new.p95_ms, "over": new.over},
        }
        self._log(pending.operation, f"{name}: {verdict.what}: {verdict.reason}\n")
        self._end_look()
        pending = replace(pending, evidence=evidence)
        self._record = begun(self._record, pending)
        self._save()
        if verdict.what == "roll back":
            self._step(name, "failed", verdict.reason)
            self._event("canary.rolled_back", verdict.reason, evidence)
            self._around.app.tell(AbandonRevision(revision=pending.number, reason=f"canary: {verdict.reason}"))
            return
        self._step(name, "succeeded", verdict.reason)
        self._event("canary.promoted", verdict.reason, evidence)
        self._record = begun(self._record, replace(pending, phase="switch", stage=pending.stage + 1))
        self._save()
        self._switch()

    def _end_look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _sample(rows: list[Traffic]) -> Sample:
    """Of several containers; their 95th percentile is the worst of those with a fair share of requests."""
    total = sum(row.requests for row in rows)
    times = [row.p95_ms for row in rows if row.p95_ms is not None and row.requests * len(rows) * 2 >= total]
    return Sample(
        requests=total,
        failed=sum(row.failed for row in rows),
        p95_ms=max(times, default=None),
        over=sum(row.over for row in rows),
    )


def _words(error: BaseException, view: ContainerView | None) -> str:
    if not isinstance(error, EngineError):
        raise error
    return view.reason if view is not None and view.reason else str(error)


def unless_unanswered(error: BaseException, otherwise: Any) -> Any:
    """Request records cannot be had now: that is no reason to crash."""
    if not isinstance(error, NextDeployError):
        raise error
    return otherwise
