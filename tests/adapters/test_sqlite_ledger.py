from __future__ import annotations

import sqlite3
import threading

import pytest

from ndactors.adapters.sqlite_file import SqliteFile
from ndactors.adapters.sqlite_ledger import SqliteLedger
from ndactors.core.model import App, Process
from ndactors.errors import StateError
from ndactors.messages.operations import GetOperations, GetRevisions, Operation, Revision, Step


@pytest.fixture
def ledger(tmp_path):
    made = SqliteLedger(tmp_path / "ledger.db", lambda *_: None, lambda call: call())
    yield made
    made.close()


def operation(number: int, **more) -> Operation:
    return Operation(id=f"op{number}", kind="deploy", **{"apps": ("shop",), **more})


def test_what_was_saved_last_is_what_is_there(ledger):
    ledger.save_operation(operation(1))
    ledger.save_operation(operation(1, state="failed", log="a\nb\n", steps=(Step(name="prepare", state="failed"),)))
    found = ledger.operation("op1")
    assert (found.state, found.log, found.steps[0].state) == ("failed", "a\nb\n", "failed")
    assert ledger.operation("op2") is None
    assert len(ledger.operations(GetOperations()).items) == 1


def test_pages_are_newest_first_by_app_and_state(ledger):
    for number in range(1, 6):
        ledger.save_operation(operation(number, apps=("shop", "a") if number % 2 else ("shopper",)))
    ledger.save_operation(operation(2, state="succeeded", apps=("shopper",)))
    page = ledger.operations(GetOperations(app="shop", limit=2))
    assert [item.id for item in page.items] == ["op5", "op3"]
    rest = ledger.operations(GetOperations(app="shop", limit=2, before=page.next))
    assert ([item.id for item in rest.items], rest.next) == (["op1"], None)
    assert [item.id for item in ledger.operations(GetOperations(state="succeeded")).items] == ["op2"]


def test_revisions_by_number_and_back_with_their_spec(ledger):
    spec = App(name="shop", image="shop:1", processes={"web": Process(name="web", env={"A": "1"})})
    for number in (1, 2, 3):
        ledger.save_revision(Revision(app="shop", number=number, at="t", by="file", spec=spec))
    ledger.save_revision(Revision(app="shop", number=2, at="t", by="file", state="refused", spec=spec))
    page = ledger.revisions(GetRevisions(app="shop", limit=2))
    assert [(row.number, row.state) for row in page.items] == [(3, "former"), (2, "refused")]
    assert [row.number for row in ledger.revisions(GetRevisions(app="shop", before=page.next)).items] == [1]
    assert ledger.revision("shop", 1).spec == spec
    assert ledger.revision("other", 1) is None


def test_it_is_all_there_after_a_restart(tmp_path):
    for _ in range(2):
        ledger = SqliteLedger(tmp_path / "ledger.db", lambda *_: None, lambda call: call())
        ledger.save_operation(operation(1))
        ledger.close()
    again = SqliteLedger(tmp_path / "ledger.db", lambda *_: None, lambda call: call())
    assert again.operation("op1") is not None
    again.close()


def test_a_file_is_closed_only_once_nobody_works_with_it(tmp_path):
    """Whoever asked for the work may have been ended; the thread that does it was not."""
    file = SqliteFile(tmp_path / "x.db", "CREATE TABLE t (n);", lambda *_: None, lambda call: call(), durable=False)
    works, go_on, done = threading.Event(), threading.Event(), []

    def slow(database: sqlite3.Connection) -> None:
        works.set()
        assert go_on.wait(10)
        database.execute("INSERT INTO t VALUES (1)")
        done.append(database.execute("SELECT count(*) FROM t").fetchone()[0])

    worker = threading.Thread(target=lambda: file.call(slow))
    worker.start()
    assert works.wait(10)
    closing = threading.Thread(target=file.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    worker.join(10)
    closing.join(10)
    assert done == [1]
    with pytest.raises(StateError):
        file.call(lambda database: database.execute("SELECT 1"))
