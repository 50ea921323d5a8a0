"""What people read: the texts of a ``Notification`` for each medium, bounded, and with nothing in them that would mean
something there."""

from __future__ import annotations

import datetime
import math
from typing import Any

import msgspec
from msgspec.structs import replace

from .alerts import AlertView
from .notifications import Notification
from .one_line import line as line
from .webhooks import MAX_BODY

MAX_ALERTS = 20
"""So many are listed in one message; the others are counted."""
MAX_UNLISTED = 2000
"""Of so many others the ids are known."""
MAX_SENTENCE = 500
MAX_NAME = 200
MAX_SUBJECT = 150
SLACK_BLOCK = 3000
SLACK_BLOCKS = 50
SLACK_ALERT = 1500
"""Of each alert in Slack: all of them together have to fit as well."""
SLACK_HEADER = 150

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


# -- bounds ----------------------------------------------------------------------------------------


def fitted(notification: Notification) -> Notification:
    """The same, bounded: at most ``MAX_ALERTS`` alerts, short texts of one line without what would steer a terminal or
    begin a new header. What it gives can be written as UTF-8 and as JSON."""
    alerts = tuple(_fitted(alert) for alert in notification.alerts[:MAX_ALERTS])
    further = (*(alert.id for alert in notification.alerts[MAX_ALERTS:]), *notification.unlisted)
    unlisted = tuple(line(id, MAX_NAME) for id in further)
    return replace(
        notification,
        id=line(notification.id, MAX_NAME),
        title=line(notification.title, MAX_NAME),
        alerts=alerts,
        more=notification.more + len(notification.alerts) - len(alerts),
        unlisted=unlisted[:MAX_UNLISTED],
        server=line(notification.server, MAX_NAME),
        project=line(notification.project, MAX_NAME),
        environment=line(notification.environment, MAX_NAME),
    )


def _fitted(alert: AlertView) -> AlertView:
    subject = {line(key, 60): line(value, MAX_NAME) for key, value in list(alert.subject.items())[:10]}
    return replace(
        alert,
        id=line(alert.id, MAX_NAME),
        app=_named(alert.app),
        process=_named(alert.process),
        container=_named(alert.container),
        subject=subject,
        acknowledged_by=line(alert.acknowledged_by, MAX_NAME),
        unit=line(alert.unit, 30),
        summary=line(alert.summary, MAX_SENTENCE),
        advice=line(alert.advice, MAX_SENTENCE),
    )


def _named(text: str | None) -> str | None:
    return line(text, MAX_NAME) if text is not None else None


# -- words -----------------------------------------------------------------------------------------


def subject(notification: Notification) -> str:
    """For the subject of a mail, and wherever one line has to do."""
    where = notification.server or notification.project or "nextdeploy"
    return line(f"[{where}] {headline(notification)}", MAX_SUBJECT)


def headline(notification: Notification) -> str:
    """What became of what: ``Critical: shop is down``."""
    return f"{_word(notification)}: {notification.title or _count(notification)}"


def _word(notification: Notification) -> str:
    if notification.state == "test":
        return "Test"
    if notification.state == "resolved":
        return "Resolved"
    return "Critical" if any(alert.severity == "critical" for alert in notification.alerts) else "Warning"


def _count(notification: Notification) -> str:
    number = len(notification.alerts) + notification.more
    return f"{number} alert" + ("" if number == 1 else "s")


def plain(notification: Notification) -> str:
    """The whole message for a mail's body or a chat, in lines."""
    lines = [headline(notification), _from(notification), ""]
    if notification.state == "test":
        lines += ["This message was sent to see whether messages arrive. Nothing is wrong.", ""]
    for alert in notification.alerts:
        lines += [
            _title(alert, notification),
            *(f"  {name}: {text}" for name, text in details(alert, notification)),
            "",
        ]
    if notification.more:
        lines += [_more(notification), ""]
    open_ones = [alert for alert in notification.alerts if _over(alert, notification) is None]
    if notification.state == "firing" and open_ones:
        lines += [f"To say that you look after it: nextdeploy alerts ack {open_ones[0].id}", ""]
    return "\n".join(lines)


def _from(notification: Notification) -> str:
    parts = [
        ("Server", notification.server),
        ("project", notification.project),
        ("environment", notification.environment),
    ]
    told = ", ".join(f"{name} {value}" for name, value in parts if value)
    return f"{told or 'NextDeploy'}, {moment(notification.at)}"


def _more(notification: Notification) -> str:
    return f"{notification.more} more are not listed: `nextdeploy alerts` shows all."


def _title(alert: AlertView, notification: Notification) -> str:
    over = _over(alert, notification) is not None
    state = "RESOLVED" if over else alert.severity.upper()
    return f"{state}: {alert.summary or alert.kind}"


def details(alert: AlertView, notification: Notification) -> list[tuple[str, str]]:
    """Name and text of what there is to say of one alert besides its summary."""
    since, over = alert.since or alert.fired_at, _over(alert, notification)
    rows = [("Where", where(alert, notification))]
    if since > 0 and over is None:
        rows.append(("Since", f"{moment(since)} ({lasting(notification.at - since)} so far)"))
    elif since > 0 and over is not None:
        rows.append(("Was", f"{moment(since)} to {moment(over)}; it lasted {lasting(over - since)}"))
    if alert.value is not None:
        limit = f" (threshold {figure(alert.threshold, alert.unit)})" if alert.threshold is not None else ""
        rows.append(("Figure", figure(alert.value, alert.unit) + limit))
    if alert.count > 1:
        rows.append(("Happened", f"{alert.count} times"))
    if alert.acknowledged_by and over is None:
        rows.append(("Looked after by", alert.acknowledged_by))
    if alert.advice and over is None:
        rows.append(("To do", alert.advice))
    rows.append(("Alert", f"{alert.kind}, {alert.id}"))
    return rows


def _over(alert: AlertView, notification: Notification) -> float | None:
    """When it ended, if it did."""
    if alert.resolved_at is not None:
        return alert.resolved_at
    return notification.at if alert.state == "resolved" or notification.state == "resolved" else None


def where(alert: AlertView, notification: Notification) -> str:
    parts = {"app": alert.app, "process": alert.process, "container": alert.container, **alert.subject}
    named = ", ".join(f"{name} {value}" for name, value in parts.items() if value)
    host = f"host {notification.server}" if notification.server else "this host"
    return f"{named}, {host}" if named else host


def moment(seconds: float) -> str:
    """``2026-01-31 12:00:00 UTC``."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def lasting(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if not math.isfinite(seconds) or seconds > 1e10:
        return "an unknown time"
    whole = max(0, round(seconds))
    for unit, below, length, rest in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= length:
            more = whole % length // rest
            return f"{whole // length} {unit}" + (f" {more} {below}" if more else "")
    return f"{whole} s"


def figure(value: float, unit: str) -> str:
    """``93.1 %``, ``1.5 GiB``, ``120 ms``."""
    if unit == "bytes" and math.isfinite(value):
        size, step = value, 0
        while abs(size) >= 1024 and step < len(_SIZES) - 1:
            size, step = size / 1024, step + 1
        return f"{size:.1f} {_SIZES[step]}" if step else f"{size:.0f} B"
    number = f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return f"{number} {unit}".rstrip()


# -- Slack -----------------------------------------------------------------------------------------


def slack(notification: Notification) -> dict[str, Any]:
    """The body for an incoming webhook: blocks, and a text for where blocks are not shown."""
    head = {"type": "plain_text", "text": line(headline(notification), SLACK_HEADER), "emoji": False}
    blocks: list[dict[str, Any]] = [{"type": "header", "text": head}]
    if notification.state == "test":
        blocks.append(_section("This message was sent to see whether messages arrive. Nothing is wrong.", SLACK_BLOCK))
    room = SLACK_BLOCKS - 3
    for alert in notification.alerts[:room]:
        rows = (f"{name}: {text}" for name, text in details(alert, notification))
        blocks.append(_section("\n".join((_title(alert, notification), *rows)), SLACK_ALERT))
    hidden = notification.more + max(0, len(notification.alerts) - room)
    if hidden:
        blocks.append(_section(_more(replace(notification, more=hidden)), SLACK_BLOCK))
    told = {"type": "mrkdwn", "text": escaped(_from(notification), SLACK_BLOCK)}
    blocks.append({"type": "context", "elements": [told]})
    return {"text": escaped(subject(notification), SLACK_BLOCK), "blocks": blocks}


def _section(text: str, most: int) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": escaped(text, most)}}


_SLACK = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str, most: int) -> str:
    """As Slack shows it literally: nobody is called by ``<!channel>``, no link is made. Cut at ``most`` characters, never
    within an escape."""
    parts = [_SLACK.get(c, c) for c in text[:most]]
    size = sum(map(len, parts))
    if size <= most and len(text) <= most:
        return "".join(parts)
    while parts and size > most - 1:
        size -= len(parts.pop())
    return "".join(parts) + "…"


# -- webhooks --------------------------------------------------------------------------------------


def event_of(notification: Notification) -> str:
    return f"alert.{notification.state}"


def webhook_body(notification: Notification) -> bytes:
    """JSON: ``type``, ``timestamp`` and ``data``, as Standard Webhooks has it. Times are RFC 3339 in UTC. At most
    ``MAX_BODY`` bytes: alerts that do not fit are counted."""
    alerts = [_row(alert) for alert in notification.alerts]
    while True:
        data = {
            "id": notification.id,
            "state": notification.state,
            "title": notification.title,
            "server": notification.server,
            "project": notification.project,
            "environment": notification.environment,
            "alerts": alerts,
            "more": notification.more + len(notification.alerts) - len(alerts),
        }
        body = msgspec.json.encode(
            {"type": event_of(notification), "timestamp": _rfc3339(notification.at), "data": data}
        )
        if len(body) <= MAX_BODY or not alerts:
            return body
        alerts = alerts[:-1]


def _row(alert: AlertView) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(alert)
    for name in ("since", "fired_at", "last_at", "acknowledged_at", "resolved_at"):
        row[name] = _rfc3339(row[name]) if row[name] else None
    return row


def _rfc3339(seconds: float) -> str | None:
    try:
        text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None
    return text.replace("+00:00", "Z")
