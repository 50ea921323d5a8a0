"""The ground that tests stand on: a real Docker Engine if there can be one, images made here, and a count of what ran
on it that nobody can miss."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "ground"))

import dockerd
import images

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell that starts us in the background takes Ctrl-C from us, and so from every program that tests send it to
    signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRED = os.environ.get("NEXTDEPLOY_REQUIRE_ENGINE") == "1"
_counts = {"ran": 0, "skipped": 0}


@pytest.fixture(scope="session")
def engine_address() -> Iterator[str]:
    """The address of a Docker Engine: the one that answers, else one started for these tests."""
    found = dockerd.answering()
    if found is not None:
        yield found
        return
    own = dockerd.start_own()
    if own is None:
        words = "no Docker Engine answers, and none can be started here"
        if REQUIRED:
            pytest.fail(words)
        pytest.skip(words)
    yield own.address
    own.stop()


@pytest.fixture(scope="session")
def test_image(engine_address: str) -> str:
    """An image with the tests' app in it, made here."""
    return images.test_app(engine_address)


@pytest.fixture(scope="session")
def shop_image(engine_address: str) -> str:
    return images.shop(engine_address)


@pytest.fixture
def daemon_id(engine_address: str) -> Iterator[str]:
    """A daemon's id; whatever carries it is removed afterwards."""
    made = f"test{secrets.token_hex(6)}"
    yield made
    dockerd.remove_all(engine_address, made)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stands on an Engine is marked so; the longest go last."""
    for item in items:
        chosen = getattr(item, "callspec", None)
        on_docker = chosen is not None and chosen.params.get("ground") == "docker"
        if on_docker or {"engine_address", "daemon_id", "private_engine"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("engine")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "engine" in report.keywords:
        if report.when == "call" and not report.skipped:
            _counts["ran"] += 1
        elif report.skipped:
            _counts["skipped"] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran, skipped = _counts["ran"], _counts["skipped"]
    colour = {"red": True, "bold": True} if skipped else {"green": True}
    terminalreporter.write_sep("=", f"ON A REAL DOCKER ENGINE: {ran} ran, {skipped} SKIPPED", **colour)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if REQUIRED and _counts["skipped"]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
