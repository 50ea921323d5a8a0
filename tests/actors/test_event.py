"""Events are logged and stored, whatever their details are called."""

from __future__ import annotations

import logging

from ndactors.actors.event import EventActor
from ndactors.messages.containers import RecordEvent
from ndactors.messages.queries import EventPage, GetEvents
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


class Store:
    def __init__(self) -> None:
        self.events: list = []

    def append(self, events) -> None:
        self.events += events

    def page(self, query) -> EventPage:
        return EventPage(items=tuple(self.events))


def test_a_detail_may_be_called_like_a_field_of_a_log_record(caplog):
    store, ref = Store(), Ref("events")
    child = Child(ref, EventActor, store, lambda: "now")
    root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(None)))
    assert root.wait_started(5)
    detail = {"process": "ruby", "name": "x", "message": "y", "args": 1, "port": 9100}
    with caplog.at_level(logging.INFO, "ndactors.event"):
        ref.tell(RecordEvent(kind="port.opened", reason="open", detail=detail))
        ref.ask(GetEvents())
    assert ref.restarts == 0
    assert root.stop(5)
    assert store.events[0].detail == detail
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "port.opened"]
    assert record.levelno == logging.WARNING
    assert (record.process_, record.port) == ("ruby", 9100)
