"""`nextdeploy exec`: a terminal in a container, or a command there whose streams are ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .failures import FAILED, WRONG, Ended, Failure, Unreachable
from .options import verb

if TYPE_CHECKING:
    from .channel import Channel
    from .pumping import Sink
    from .window import Window


@verb("exec shop", "exec shop/worker --replica 2 -- tail -f /tmp/log", "exec shop/db -T -- psql < dump.sql")
@click.argument("where", metavar="APP[/PROCESS]")
@click.argument("argv", metavar="[-- COMMAND…]", nargs=-1)
@click.option("--replica", type=click.IntRange(1), metavar="N", help="In this one (default: the healthiest).")
@click.option("-T", "--no-tty", is_flag=True, help="No terminal, even if we run in one.")
@click.pass_context
def command(ctx: click.Context, where: str, argv: tuple[str, ...], replica: int | None, no_tty: bool) -> None:
    """Open a terminal in a container of APP, or run COMMAND there. Exits with its exit code.

    Without a COMMAND that is the best shell there is. No shell is involved otherwise: write `-- sh -c '…'` for one. When
    stdin or stdout is no terminal, there is none on the other side either, and bytes pass as they are.
    """
    from .channel import opened, place
    from .connection import api, server_from
    from .window import Window

    app, process = place(where)
    server = server_from(ctx)
    source, out, err = (_descriptor(stream) for stream in (sys.stdin, sys.stdout, sys.stderr))
    with Window(source if not no_tty and _is_terminal(sys.stdin) and _is_terminal(sys.stdout) else None) as window:
        size = window.size() or (None, None)
        path = api(
            "apps",
            app,
            "exec",
            tty=int(window.exists),
            process=process,
            replica=replica,
            rows=size[0],
            columns=size[1],
        )
        channel = opened(server, path + "".join(f"&command={_quoted(word)}" for word in argv))
        try:
            window.make_raw()
            code = Session(channel, source, out, err, window).run()
        finally:
            channel.close()
    raise Ended(code if 0 <= code < 256 else FAILED)


class Session:
    """Until the command has ended and all that it printed is written. A descriptor may be None: closed."""

    def __init__(self, channel: Channel, source: int | None, out: int | None, err: int | None, window: Window) -> None:
        from .pumping import Sink

        self._channel, self._source, self._window = channel, source, window
        self._out = None if out is None else Sink(out)
        self._err = None if err is None else Sink(err)
        self._now = self._out
        """Where the next bytes belong."""
        self._code: int | None = None
        self._failure: Failure | None = None
        if source is None:
            channel.put_json(eof=True)

    def run(self) -> int:
        """The exit code. ``Failure`` if there is none, ``OSError`` if nobody reads what is printed."""
        while True:
            if not self._is_over:
                self._turn()
            if self._is_over and not self._sinks():
                break
            self._wait()
        if self._failure is not None:
            raise self._failure
        return FAILED if self._code is None else self._code

    @property
    def _is_over(self) -> bool:
        return self._code is not None or self._failure is not None

    def _sinks(self) -> list[Sink]:
        """Those for which something waits."""
        return [sink for sink in (self._out, self._err) if sink is not None and sink.waiting]

    @property
    def _has_room(self) -> bool:
        return all(sink.has_room for sink in self._sinks())

    def _turn(self) -> None:
        try:
            for message in self._channel.turn(reading=self._has_room):
                if isinstance(message, bytes):
                    if self._now is not None:
                        self._now.waiting += message
                else:
                    self._understand(message)
        except Unreachable as failure:
            self._failure = failure
        goodbye = self._channel.goodbye
        if goodbye is not None and not self._is_over:
            self._failure = Unreachable(f"the daemon ended it: {goodbye.reason or goodbye.code}")

    def _understand(self, message: dict[str, Any]) -> None:
        if "stream" in message:
            self._now = self._err if message["stream"] == "stderr" else self._out
        elif "error" in message:
            self._failure = Failure(str(message["error"]))
        elif "exit" in message:
            code = message["exit"]
            if isinstance(code, int):
                self._code = code
            else:
                self._failure = Failure("the command ended, but its exit code is not known")

    def _wait(self) -> None:
        from .pumping import READ, WRITE, wait

        channel, source, window = self._channel, self._source, self._window
        wanted = {sink.descriptor: WRITE for sink in self._sinks()}
        if not self._is_over:
            events = channel.wants(reading=self._has_room)
            if events:
                wanted[channel.fileno()] = events
            if source is not None and channel.has_room:
                wanted[source] = wanted.get(source, 0) | READ
            if window.exists:
                wanted[window.changes] = READ
        ready = wait(wanted)
        for sink in self._sinks():
            if sink.descriptor in ready:
                sink.flush()
        if window.exists and window.changes in ready and (size := window.changed()):
            channel.put_json(resize=size)
        if source is not None and ready.get(source, 0) & ~WRITE:
            self._type(source)

    def _type(self, source: int) -> None:
        from .pumping import read

        try:
            data = read(source)
        except OSError:
            data = b""  # the terminal was hung up
        if data:
            self._channel.put(data)
        elif data is not None:
            self._channel.put_json(eof=True)
            self._source = None


def _descriptor(stream: Any) -> int | None:
    """None: it was closed before we began, and its number may be somebody else's by now."""
    return None if stream is None else int(stream.fileno())


def _is_terminal(stream: Any) -> bool:
    return stream is not None and bool(stream.isatty())


def _quoted(word: str) -> str:
    from urllib.parse import quote

    try:
        return quote(word, safe="")
    except UnicodeEncodeError as error:
        raise Failure("the command is not UTF-8", code=WRONG) from error
