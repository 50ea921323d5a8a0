"""The log process: one loop that reads what containers write, stores it, and tells who listens. It needs no daemon: it goes
on with the containers that it knows, from where it was, also after a crash of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

from .. import __version__
from ..core.logquery import Matcher
from ..core.logrecords import Columns, Gap, LogSource, Position, format_ns
from ..errors import Invalid
from ..messages.edge import Hello, Refused, Stop
from ..messages.logs import (
    MAX_LIMIT,
    PROTOCOL,
    QUIET_REPORT_SECONDS,
    REPORT_SECONDS,
    AskedLines,
    ChunkTaken,
    FlushLogs,
    FollowLogs,
    GetLogs,
    KeepLogs,
    LogsFlushed,
    LogsFound,
    QueryLogs,
    SubscribeLogs,
    SubscriptionRefused,
    UnsubscribeLogs,
    WantLines,
)
from ..runtime.link import listen_unix
from ..runtime.notes import Notes, exception_text
from ..runtime.peers import Peer, Peers
from ..runtime.roles import Arguments
from .expressions import compile_re2
from .figures import Figures
from .intake import Intake
from .live import Live, Subscription
from .outlet_process import OutletProcess
from .readers import Found, Readers
from .segments import SEGMENT_BYTES, SMALLEST_SEGMENT, Segments
from .watch import Watch

RETRY_SECONDS = 1.0
"""Between two tries to store something on a full disk."""
EXPIRE_SECONDS = 60.0
ASK_SECONDS = 1.0
"""Between two questions about a container that writes."""
ASK_AT_LEAST_SECONDS = 15.0
"""The same for one that does not."""
UNSENT_BYTES = 8 * 1024 * 1024
"""To the daemon; beyond that, live records wait in their ring."""
LIVE_PROGRAM = 300
"""Instructions of a live filter's regular expression: it is searched with where records are stored."""
WAITING_BYTES = 32 * 1024 * 1024
"""Of records that are read and make no block yet, all containers together."""
HELD_BYTES = 512 * 1024 * 1024
"""Of files that are deleted and not read yet: we keep the disk from using that room again."""
HELD_WHEN_FULL = 64 * 1024 * 1024
"""The same while the log files' own disk is nearly full."""
SCARCE = 0.05
FLUSH_SECONDS = 2.0
PAST_SECONDS = 30.0
"""So long each page of a subscriber's past may wait for its turn."""
STEPS = 4
"""So many reads of one container before the others have their turn; one, while somebody listens to them: what is on its way
to the daemon is not much more."""

note = Notes("logs")

FromDaemon = (
    Hello
    | Stop
    | FollowLogs
    | KeepLogs
    | FlushLogs
    | AskedLines
    | QueryLogs
    | SubscribeLogs
    | UnsubscribeLogs
    | ChunkTaken
)


class Asked:
    """When the engine is asked again about a container, and how long after that."""

    def __init__(self, due: float = 0.0, pause: float = ASK_SECONDS) -> None:
        self.due = due
        self.pause = pause


class LogProcess:
    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "logs"
        self._peers = Peers(note)
        self._figures = Figures()
        self._segments = Segments(self._folder / "store", self._found_damage)
        self._live = Live()
        self._readers = Readers(state_dir, self._peers, note)
        self._outlets = OutletProcess(state_dir, note)
        self._watch = Watch(state_dir, self._peers, note)
        self._intakes: dict[str, Intake] = {}
        self._daemon: Peer | None = None
        self._epoch = 0
        self._keep: KeepLogs | None = None
        self._full = ""
        """Why the store takes nothing; empty: it does."""
        self._told_full = ""
        self._retry_at = self._reported = self._expired = 0.0
        self._asked: dict[str, Asked] = {}
        self._over = False
        self._bell, self._ring = socket.socketpair()

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> int:
        for end in (self._bell, self._ring):
            end.setblocking(False)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._told_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides
        self._peers.watch(self._bell, self._signalled)
        self._watch.start()
        self._segments.open()
        self._figures.begin(self._segments)
        for source, _ in list(self._segments.positions.values()):
            self._follow(source)
        control = listen_unix(self._folder / "logs.sock")
        control.setblocking(False)
        self._peers.watch(control, lambda: self._meet(control))
        while not self._over:
            self._peers.turn(self._patience(time.monotonic()))
            now = time.monotonic()
            self._read(now)
            due = now - self._reported >= self._pause()
            self._store(now, due)
            self._tell(now, due)
            self._look_after(now, due)
        return self._finish()

    def _patience(self, now: float) -> float:
        dues: list[float] = []
        if not self._full:
            for intake in self._intakes.values():
                dues.append(intake.store_due)
                if intake.tail is not None:
                    dues.append(intake.due)
        return max(0.0, min([self._reported + self._pause(), *dues]) - now)

    def _pause(self) -> float:
        """From the last report, and the last look at what runs beside us, to the next."""
        beside = self._outlets.wanted or self._outlets.runs or self._readers.runs or not self._watch.runs
        asking = any(intake.tail is None for intake in self._intakes.values())
        busy = self._full or self._told_full or beside or asking or self._figures.has_news
        return REPORT_SECONDS if busy else QUIET_REPORT_SECONDS

    def _told_to_stop(self, *_: object) -> None:
        self._over = True

    def _signalled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)

    def _finish(self) -> int:
        """What was read is stored; what was not is read by the next one."""
        for intake in self._intakes.values():
            if not self._put(intake, time.monotonic()):
                break
        with contextlib.suppress(OSError):
            self._segments.checkpoint()
        self._watch.stop()
        self._readers.stop()
        self._outlets.stop()
        self._segments.close()
        return 0

    # -- reading and storing -----------------------------------------------------------------------

    def _read(self, now: float) -> None:
        if self._full:
            return
        for intake in list(self._intakes.values()):
            if intake.due > now and not intake.woken:
                continue
            for _ in range(1 if self._live.subscriptions else STEPS):
                if (intake.due > now and not intake.woken) or self._waiting_bytes() > WAITING_BYTES:
                    break
                self._step(intake, now)
            if not intake.armed and intake.rests(now):
                intake.arm(self._watch.arm(intake), now)
            if self._watch.missing(intake):
                self._watch.add(intake)

    def _waiting_bytes(self) -> int:
        return sum(intake.waiting_bytes for intake in self._intakes.values())

    def _step(self, intake: Intake, now: float) -> None:
        try:
            intake.step(now)
        except OSError as error:
            note(f"{intake.source.path}: {error.strerror or error}")
            intake.due = now + RETRY_SECONDS
        except Exception:  # noqa: BLE001 - the guard: what one container writes must not end the reading of all others
            self._fault(f"some output of {intake.source.container[:12]} was skipped: {exception_text()}")
            intake.skip(now)

    def _store(self, now: float, due: bool) -> None:
        if not self._full or now >= self._retry_at:
            self._put_what_is_ready(now)
        if self._full or due:
            self._let_go(now)

    def _put_what_is_ready(self, now: float) -> None:
        urgent = self._waiting_bytes() > WAITING_BYTES // 2
        for intake in list(self._intakes.values()):
            if (intake.ready(now) or ((self._full or urgent) and intake.waits)) and not self._put(intake, now):
                return
            if intake.finished and not intake.waits:
                self._forget(intake)

    def _put(self, intake: Intake, now: float) -> bool:
        """Store everything that waits. False: the disk does not take it."""
        while (block := intake.next_block()) is not None:
            columns, position, gap, bundles = block
            try:
                self._segments.append(intake.source, columns, position, gap)
            except OSError as error:
                if not self._full:
                    note(f"the log store cannot be written: {error.strerror or error}")
                self._full = error.strerror or str(error)
                self._retry_at = now + RETRY_SECONDS
                return False
            intake.stored(bundles, now)
            self._figures.stored(intake.source, columns, gap)
        if self._full:
            note("the log store can be written again")
            self._full = ""
        return True

    def _let_go(self, now: float) -> None:
        """While nothing can be stored, containers write on and rotate their files away. We hold those only so long."""
        for intake in self._intakes.values():
            self._look(intake)
        while True:
            held = {intake: intake.behind()[1] for intake in self._intakes.values() if intake.tail is not None}
            total = sum(held.values())
            if not total:
                return
            most = max(held, key=lambda intake: held[intake])
            assert most.tail is not None
            if total <= (HELD_WHEN_FULL if _scarce(most.tail.path.parent) else HELD_BYTES):
                return
            gap = most.tail.drop()
            if gap is None:
                return
            most.lost(gap, now)
            self._figures.lost(most.source, gap)

    @staticmethod
    def _look(intake: Intake) -> None:
        try:
            if intake.tail is not None:
                intake.tail.look()
        except OSError as error:
            note(f"{intake.source.path}: {error.strerror or error}")

    def _forget(self, intake: Intake) -> None:
        self._segments.note(intake.source, None)
        self._watch.remove(intake)
        intake.close()
        self._intakes.pop(intake.source.container, None)
        self._asked.pop(intake.source.container, None)

    # -- which containers --------------------------------------------------------------------------

    def _follow(self, source: LogSource) -> None:
        known = self._intakes.get(source.container)
        position: Position | None
        if known is not None:
            if (known.source.path == "") == (source.path == "") or not source.path:
                return
            # from now on its files can be read; where it was is found again by time
            if not self._put(known, time.monotonic()):
                return  # what waits would be lost; it is told again
            position = known.position()
            self._forget(known)
            self._segments.note(source, position)
        else:
            _, position = self._segments.positions.get(source.container, (source, None))
        intake = Intake(source, position, self._publish, lambda: format_ns(time.time_ns()))
        self._intakes[source.container] = intake
        self._watch.add(intake)

    def _publish(self, source: LogSource, columns: Columns, gap: Gap | None) -> None:
        self._live.publish(source, columns, gap)

    def _told(self, message: FollowLogs) -> None:
        for source in message.sources:
            self._follow(source)
        if not message.complete:
            return
        listed = {source.container for source in message.sources}
        for intake in list(self._intakes.values()):
            if intake.source.container in listed:
                continue
            if intake.tail is None or not intake.tail.files:
                if intake.tail is not None and intake.position().offset:
                    words = "its file was removed before it was read to the end"
                    intake.lost(Gap(bytes=0, at_least=True, reason=words), time.monotonic())
                if intake.waits and not self._put(intake, time.monotonic()):
                    continue
                self._forget(intake)

    def _flush(self, containers: tuple[str, ...], now: float) -> None:
        """Read and store what they have written so far."""
        deadline = now + FLUSH_SECONDS
        self._watch.settle(FLUSH_SECONDS / 2)
        for container in containers:
            intake = self._intakes.get(container)
            if intake is None or intake.tail is None:
                continue
            while not self._full and time.monotonic() < deadline:
                intake.rotated = True
                before = intake.tail.behind()[0]
                self._step(intake, time.monotonic())
                if not before or intake.tail.behind()[0] == before:
                    break
                self._put(intake, time.monotonic())
            self._put(intake, time.monotonic())

    def _flush_all(self, now: float) -> None:
        for intake in self._intakes.values():
            if intake.waits and not self._put(intake, now):
                return

    # -- telling -----------------------------------------------------------------------------------

    def _tell(self, now: float, due: bool) -> None:
        if self._daemon is None:
            return
        for chunk in self._live.chunks() if self._daemon.out.size < UNSENT_BYTES else ():
            self._peers.send(self._daemon, chunk)
            if self._daemon is None or self._daemon.out.size >= UNSENT_BYTES:
                break  # a daemon that takes nothing; the rest waits in the ring
        for id, words in self._live.take_failed():
            self._fault(words)
            self._peers.send(self._daemon, SubscriptionRefused(id=id, reason="this filter failed"))
        for container, intake in self._intakes.items():
            asked = self._asked.setdefault(container, Asked())
            room = not self._full and self._waiting_bytes() < WAITING_BYTES
            if intake.tail is None and now >= asked.due and room and self._daemon is not None:
                asked.due, asked.pause = now + asked.pause, min(asked.pause * 2, ASK_AT_LEAST_SECONDS)
                self._peers.send(self._daemon, WantLines(container=container, since=intake.position().last))
        if due:
            report = self._figures.report(self._segments, self._intakes.values(), len(self._live.subscriptions))
            report = self._outlets.added_to(report, self._full)
            self._peers.send(self._daemon, report)
            self._figures.told()
            self._told_full = self._full

    def _look_after(self, now: float, due: bool) -> None:
        if due:
            self._reported = now
            self._readers.look(now)
            self._watch.look_after(now)
            self._outlets.look(now)
        if self._keep is not None and now - self._expired >= EXPIRE_SECONDS:
            self._expired = now
            gone = self._segments.expire(self._keep.days, self._keep.bytes, self._outlets.may_go)
            if gone:
                self._figures.expired(self._segments)

    # -- the daemon --------------------------------------------------------------------------------

    def _meet(self, control: socket.socket) -> None:
        sock, _ = control.accept()
        self._peers.add(Peer(sock, FromDaemon, self._heard, self._lost))

    def _lost(self, peer: Peer) -> None:
        if peer is self._daemon:
            self._daemon = None
            self._live.subscriptions.clear()

    def _heard(self, peer: Peer, message: object) -> None:
        if isinstance(message, Hello):
            self._welcome(peer, message)
        elif peer is not self._daemon:
            self._peers.forget(peer)
        else:
            try:
                self._do(peer, message, time.monotonic())
            except Exception:  # noqa: BLE001 - the guard: whoever comes after us would be told the same again
                self._fault(f"a {type(message).__name__} was not understood: {exception_text()}")

    def _do(self, peer: Peer, message: object, now: float) -> None:
        match message:
            case FollowLogs():
                self._told(message)
            case KeepLogs():
                self._keep_as(message)
            case FlushLogs():
                self._flush(message.containers, now)
                self._peers.send(peer, LogsFlushed(id=message.id))
            case AskedLines() if not self._full:
                intake = self._intakes.get(message.container)
                if intake is not None and intake.tail is None:
                    before = intake.position().last
                    intake.asked(message.rows, now)
                    if intake.position().last != before:
                        self._asked[message.container] = Asked(now + ASK_SECONDS)
            case QueryLogs():
                self._query(message.id, message.query, message.patience, lambda found: self._answer(peer, found), now)
            case SubscribeLogs():
                self._subscribe(peer, message, now)
            case UnsubscribeLogs():
                self._live.unsubscribe(message.id)
            case ChunkTaken():
                self._live.taken(message.id)
            case Stop():
                self._over = True

    def _welcome(self, peer: Peer, hello: Hello) -> None:
        reason = ""
        if hello.protocol != PROTOCOL:
            reason = f"this log process speaks protocol {PROTOCOL}, not {hello.protocol}"
        elif hello.epoch < self._epoch:
            reason = f"a newer daemon (epoch {self._epoch}) has this log process; {hello.epoch} is too old"
        if reason:
            self._peers.send(peer, Refused(reason=reason))
            self._peers.forget(peer)
            return
        self._epoch = hello.epoch
        before, self._daemon = self._daemon, peer
        if before is not None and before is not peer:
            self._peers.forget(before)
        self._live.subscriptions.clear()
        self._reported = 0.0
        own = Hello(protocol=PROTOCOL, epoch=self._epoch, version=__version__, pid=os.getpid(), role="logs")
        self._peers.send(peer, own)

    def _keep_as(self, keep: KeepLogs) -> None:
        self._keep = keep
        self._expired = 0.0
        self._segments.segment_bytes = max(SMALLEST_SEGMENT, min(SEGMENT_BYTES, keep.bytes // 8))
        self._outlets.configure(keep)

    # -- queries -----------------------------------------------------------------------------------

    def _query(self, id: int, query: GetLogs, patience: float, found: Found, now: float) -> None:
        self._flush_all(now)
        upto = self._segments.number, self._segments.length
        self._readers.ask(QueryLogs(id=id, query=query, upto=upto, patience=patience), found, now)

    def _answer(self, peer: Peer, found: LogsFound) -> None:
        self._peers.send(peer, found)

    def _subscribe(self, peer: Peer, message: SubscribeLogs, now: float) -> None:
        try:
            matcher = Matcher(message.filter, lambda pattern: compile_re2(pattern, LIVE_PROGRAM))
        except Invalid as error:
            self._peers.send(peer, SubscriptionRefused(id=message.id, reason=str(error)))
            return
        self._flush_all(now)
        subscription = self._live.subscribe(message.id, matcher, batch=message.batch, window=message.window)
        if message.tail > 0:
            subscription.paused = True
            self._find_past(subscription, message, None, now)

    def _find_past(self, subscription: Subscription, message: SubscribeLogs, cursor: str | None, now: float) -> None:
        """Page by page, the newest first; then it goes on with what came meanwhile."""
        left = min(message.tail, MAX_LIMIT) - len(subscription.past)

        def found(answer: LogsFound) -> None:
            subscription.past.extendleft(reversed(answer.page.items))
            more = answer.page.next
            if more and len(subscription.past) < min(message.tail, MAX_LIMIT):
                self._find_past(subscription, message, more, time.monotonic())
            else:
                subscription.paused = False

        query = GetLogs(filter=message.filter, limit=left, cursor=cursor, asker=f"live {message.id}")
        self._query(message.id, query, PAST_SECONDS, found, now)

    # -- small things ------------------------------------------------------------------------------

    def _fault(self, words: str) -> None:
        note(words)
        self._figures.notes.append(words)

    def _found_damage(self, kind: str, words: str) -> None:
        note(f"{kind}: {words}")
        self._figures.notes.append(words)


def _scarce(folder: Path) -> bool:
    """Whether its disk is nearly full."""
    try:
        usage = os.statvfs(folder)
    except OSError:
        return True
    return usage.f_bavail < SCARCE * usage.f_blocks


def main(argv: list[str]) -> int:
    state_dir = Path(Arguments(argv).needed("state-dir"))
    folder = state_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("another log process has this folder")
        return 3
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return LogProcess(state_dir).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
