"""How many connections each address has, and may have: one visitor must not take all that the process can open.

Every connection counts, from its accept to its end: idle, in a TLS handshake, or a WebSocket. Who has a whole /64 of
IPv6 can have any address in it, so all of it is one address here.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import structlog

from landline.errors import TooManyConnections
from landline.wire.problems import problem_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
"""A proxy or a tunnel on this machine speaks for everybody."""

_MAPPED = "::ffff:"
_PREFIX_BYTES = 8

_log = structlog.get_logger(__name__)


class Place:
    """What the connections of one address share. Each takes it once, and leaves it once."""

    __slots__ = ("_crowd", "_key", "_told", "connections", "counts")

    def __init__(self, crowd: dict[str | bytes, Place], key: str | bytes, *, counts: bool) -> None:
        self._crowd = crowd
        self._key = key
        self._told = False
        self.counts = counts
        self.connections = 0

    def leave(self) -> None:
        """A connection is over."""
        self.connections -= 1
        if self.connections == 0:
            del self._crowd[self._key]

    def tell(self, host: str) -> None:
        """The log of a refusal; once, until the address has let go of everything."""
        if not self._told:
            self._told = True
            _log.warning(
                "an address has as many connections as it may have; if it is a proxy, name it in trusted_proxies",
                address=host,
                setting="connections_per_address",
                connections=self.connections,
            )


class Crowd:
    """The connections of one server, by address."""

    def __init__(self, most: int, exempt: Sequence[Network] = _LOOPBACK) -> None:
        """At most so many of one address; of one that is `exempt`, any number."""
        self._most = most
        self._exempt = exempt
        self._places: dict[str | bytes, Place] = {}

    def enter(self, host: str) -> Place | None:
        """A place for one more connection of this address, to be left in the end; None where there is none."""
        if host.startswith(_MAPPED) and "." in host:
            host = host[len(_MAPPED) :]
        key = _key(host)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(self._places, key, counts=not self._is_exempt(host))
        elif place.connections >= self._most and place.counts:
            place.tell(host)
            return None
        place.connections += 1
        return place

    def _is_exempt(self, host: str) -> bool:
        address = ipaddress.ip_address(host)
        return any(address in network for network in self._exempt)


def crowd_of(most: int, trusted_proxies: Sequence[Network]) -> Crowd | None:
    """Everybody but the proxies that are trusted, and this machine; None where any number is allowed."""
    return Crowd(most, (*_LOOPBACK, *trusted_proxies)) if most else None


def _key(host: str) -> str | bytes:
    """An address of IPv4, or a /64."""
    if ":" not in host:
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:_PREFIX_BYTES]


def refusal() -> bytes:
    """What is said to one connection too many, where it can be said at no cost: the rest of what it sends is not read.
    A browser shows that as a connection that failed, which it is."""
    problem = problem_of(TooManyConnections())
    body = problem.body()
    lines = [b"HTTP/1.1 429 Too Many Requests", b"content-type: application/json; charset=utf-8", b"connection: close"]
    lines += [b"content-length: %d" % len(body), *(b"%b: %b" % header for header in problem.headers), b"", body]
    return b"\r\n".join(lines)
