"""The end of a deployment: what visitors noticed is counted, everybody is told, and what is old goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..core.model import App
from ..errors import EngineError
from ..messages.containers import (
    AbandonRevision,
    RemoveEverything,
)
from ..messages.deployments import (
    Outcome,
    Pending,
    accepted,
    begun,
    receipt_of,
    refused,
)
from ..messages.hooks import SendHooks
from ..messages.jobs import CancelJob, JobSettings
from ..messages.operations import (
    GetRevisions,
    OperationState,
    Receipt,
)
from ..messages.records import SETTLE_SECONDS, GetTraffic
from .deploy_switch import CANCELLED, unless_unanswered
from .deploying import Deploying, plain, release_key

BEFORE_SECONDS = 10.0
AFTER_SECONDS = 3.0
"""How long before and after a switch requests count for its receipt."""


@dataclass(frozen=True)
class CountDue:
    operation: str


@dataclass(frozen=True)
class Counted:
    receipt: Receipt | None


@dataclass(frozen=True)
class Pruned:
    names: list[str]


class Ending(Deploying):
    # -- the end -----------------------------------------------------------------------------------

    def _outcome(self, state: OperationState, reason: str, websockets: int = 0) -> None:
        """How it ends is known, and on record before anything is told."""
        pending = self._pending()
        outcome = Outcome(
            operation=pending.operation,
            state=state,
            reason=reason,
            revision=pending.number or None,
            evidence=pending.evidence,
        )
        pending = replace(pending, outcome=outcome, switch_ended=time.time(), websockets=websockets)
        self._record = begun(self._record, pending)
        self._save()

    def _count_soon(self) -> None:
        pending = self._pending()
        self._show(pending.target)
        self._step("receipt", "running")
        # a first version has no visitors to whom it could make a difference
        after = 0.0 if self._record.nothing_to_keep else AFTER_SECONDS + SETTLE_SECONDS
        wait = pending.switch_ended + after - time.time()
        self.after(max(0.0, wait), CountDue(pending.operation))

    def _count(self) -> None:
        pending, around, name = self._record.pending, self._around, self._name
        if pending is None or pending.outcome is None:
            return
        began, ended = pending.switch_began, pending.switch_ended
        after = 0.0 if self._record.nothing_to_keep else AFTER_SECONDS
        edges = (began - BEFORE_SECONDS, began, ended, ended + after)
        windows = {
            word: (around.stamp(edges[i]), around.stamp(edges[i + 1]))
            for i, word in enumerate(("before", "during", "after"))
        }

        def work() -> Counted:
            sums = [around.traffic(GetTraffic(app=name, since=edges[i], until=edges[i + 1])) for i in range(3)]
            if not all(found.complete for found in sums):
                self._log(pending.operation, "some records of requests at that time are lost or late\n")
            return Counted(receipt_of(*(found.all for found in sums), windows, pending.websockets, ended - began))

        self._busy(work, lambda done, error: done if error is None else unless_unanswered(error, Counted(None)))

    def _finish(self, receipt: Receipt | None) -> None:
        """Tell everybody, remember, and clean up after it."""
        self._work = None
        record, pending, around = self._record, self._pending(), self._around
        outcome = pending.outcome
        assert outcome is not None
        outcome = replace(outcome, receipt=receipt)
        good = outcome.state == "succeeded"
        if pending.switch_began:
            self._step("receipt", "succeeded" if receipt is not None else "failed")
        if good:
            self._record = accepted(record, outcome)
        else:
            self._record = refused(record, outcome, stays=record.nothing_to_keep and outcome.state == "failed")
            if self._record.live is None and pending.switch_began:
                around.app.tell(RemoveEverything())  # a first version that somebody cancelled
        if pending.number:
            self._ledger_result(pending, outcome, record.number)
        self._save()
        live = self._record.live
        if live is not None:
            around.jobs.tell(JobSettings(app=live, revision=self._record.number))
            self._show(live)
        else:
            self._show(pending.target, outcome.reason, failed=True)
        self._announce(pending, outcome)
        self._tell_part(outcome)
        if good and pending.kind == "deploy":
            self._prune(pending.target)
        self._after_end(good=good)

    def _ledger_result(self, pending: Pending, outcome: Outcome, before: int) -> None:
        """``before``: the revision that ran until now; 0: none."""
        ledger, good = self._around.ledger, outcome.state == "succeeded"
        if good and before not in (0, pending.number):
            former = ledger.revision(self._name, before)
            if former is not None and former.state == "current":
                ledger.save_revision(replace(former, state="former"))
        state = "current" if good else "refused"
        ledger.save_revision(replace(self._revision(pending, state), reason=outcome.reason))

    def _announce(self, pending: Pending, outcome: Outcome) -> None:
        if pending.kind not in ("deploy", "rollback"):
            words = f"{pending.kind}: {outcome.reason or f'revision {pending.number}'}"
            self._event("app.changed" if outcome.state == "succeeded" else "app.change_failed", words)
            return
        kind = "deploy.succeeded" if outcome.state == "succeeded" else "deploy.failed"
        detail: dict[str, Any] = {
            "revision": pending.number or None,
            "operation": pending.operation,
            "by": pending.origin.by,
            "receipt": plain(outcome.receipt) if outcome.receipt is not None else None,
        }
        words = f"revision {pending.number}" if pending.number else pending.kind
        self._event(kind, words + (f": {outcome.reason}" if outcome.reason else ""), detail)
        payload = {**detail, "app": self._name, "project": pending.target.project, "reason": outcome.reason}
        payload |= {"git": plain(pending.origin.git), "message": pending.origin.message, "kind": pending.kind}
        self._around.hooks.tell(SendHooks(event=kind, app=self._name, payload=payload))

    def _prune(self, app: App) -> None:
        images, name, ledger = self._around.workshop.images, self._name, self._around.ledger
        if images is None:
            return
        kept = {app.image_id} if app.image_id else set()
        for row in ledger.revisions(GetRevisions(app=name, limit=1000)).items:
            if row.state in ("current", "former") and row.image_id:
                if len(kept) >= app.deploy.keep:
                    break
                kept.add(row.image_id)
        ids = [id for id in kept if id]
        self._pruning = True
        self.run(
            lambda: Pruned(images.prune(app.project, name, ids)),
            lambda done, error: done if error is None else _engine_error(error, Pruned([])),
        )

    # -- stopping it -------------------------------------------------------------------------------

    def _cancel(self, operation: str, by: str) -> None:
        pending = self._record.pending
        if operation.startswith("run") or pending is None or pending.operation != operation:
            self._around.jobs.tell(CancelJob(key=f"run-{operation}"))
            return
        reason = f"{CANCELLED} by {by}"
        if pending.outcome is not None:
            return  # it is over; only its receipt is missing
        if pending.phase in ("switch", "canary"):
            self._around.app.tell(AbandonRevision(revision=pending.number, reason=reason))
            return
        self._end_pending("cancelled", reason)
        if pending.base is not None:
            # it does not come back by itself
            self._record = replace(self._record, attempted=pending.base)
            self._save()
        last, live = self._record.last, self._record.live
        assert last is not None
        self._show(live or pending.target, "" if live is not None else reason, failed=live is None)
        self._announce(pending, last)
        self._after_end(good=False)

    def _end_pending(self, state: OperationState, reason: str) -> None:
        """Whatever is under way is over. In the switch the AppActor is told by what comes next."""
        pending, before = self._record.pending, self._record.number
        if pending is None:
            return
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._end_look()
        if pending.phase == "release" and self._releases:
            self._around.jobs.tell(CancelJob(key=release_key(self._releases[0], pending.number)))
        if pending.outcome is None:
            if pending.phase in ("switch", "canary"):
                self._around.app.tell(AbandonRevision(revision=pending.number, reason=reason))
            outcome = Outcome(operation=pending.operation, state=state, reason=reason, revision=pending.number or None)
            self._record = refused(self._record, outcome, stays=False)
            self._record = replace(self._record, attempted=None)
            if pending.switch_began:
                self._ledger_result(pending, outcome, before)
        else:
            outcome = pending.outcome
            if outcome.state == "succeeded":
                self._record = accepted(self._record, outcome)
            else:
                self._record = refused(self._record, outcome, stays=self._record.nothing_to_keep)
            self._ledger_result(pending, outcome, before)
        self._save()
        self._tell_part(outcome)


def _engine_error(error: BaseException, otherwise: Any) -> Any:
    if not isinstance(error, EngineError):
        raise error
    return otherwise
