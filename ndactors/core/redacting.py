"""What of a request may be remembered: secrets in fields and queries are replaced, addresses shortened if asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import unquote_plus

REDACTED = "[redacted]"


def redact_query(query: str, names: Collection[str]) -> str:
    """``names`` in lower case. A name is recognised however it is spelled: in any case, percent-encoded, or as
    ``user[password]``."""
    if not query or not names:
        return query
    if "%" not in query:
        plain = query.lower()
        if not any(name in plain for name in names):
            return query
    return "&".join(_parameter(part, names) for part in query.split("&"))


def _parameter(part: str, names: Collection[str]) -> str:
    name, equals, _ = part.partition("=")
    if not equals:
        return part
    plain = unquote_plus(name).lower()
    words = {plain, *plain.replace("]", "").split("[")}
    return f"{name}={REDACTED}" if words & set(names) else part


def redact_url(url: str, names: Collection[str]) -> str:
    """A URL whose query and fragment may hold secrets, such as a Referer; user and password go too."""
    url, _, _ = url.partition("#")
    place, mark, query = url.partition("?")
    scheme, separator, rest = place.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        place = scheme + separator + authority.rpartition("@")[2] + slash + path
    return place + mark + redact_query(query, names)


def shorten_address(address: str, how: str) -> str:
    """``full`` as it is, ``truncated`` to its /24 or /48, ``none`` empty."""
    if how == "full":
        return address
    if how == "none":
        return ""
    try:
        own = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    bits = 24 if own.version == 4 else 48
    return str(ipaddress.ip_network(f"{own}/{bits}", strict=False).network_address)


def address_key(address: str) -> str:
    """Who counts as one client: an IPv4 address, an IPv6 /64."""
    own = ipaddress.ip_address(address.partition("%")[0])
    if own.version == 4:
        return str(own)
    return str(ipaddress.ip_network(f"{own}/64", strict=False).network_address)
