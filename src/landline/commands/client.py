"""One HTTP request to a server that runs, as commands make it: no redirects, no proxies, no connection that is kept."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
from urllib.parse import urlsplit

_TIMEOUT_S = 30


class NoAnswer(Exception):
    """The server could not be reached, is another one, or did not answer in HTTP. The message says which."""


def request(method: str, url: str, credential: str, body: bytes, pin: str) -> tuple[int, bytes]:
    """Status and body. `pin` is the SHA-256 of the one certificate that is accepted; without it, the certificate must
    be valid for everybody. Raises `NoAnswer`."""
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    _, _, target = url.partition("://")
    path = target[len(target.partition("/")[0]) :] or "/"
    try:
        connection = _connection(url, pin)
        try:
            connection.connect()
            if pin:
                _check_certificate(connection, pin)
            connection.request(method, path, body, headers)
            with connection.getresponse() as answer:
                return answer.status, answer.read()
        finally:
            connection.close()
    except TimeoutError as error:
        raise NoAnswer("no answer in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def _connection(url: str, pin: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("that is no http or https URL")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    tls = ssl.create_default_context()
    if pin:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # the certificate itself is known
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=tls)


def _check_certificate(connection: http.client.HTTPConnection, pin: str) -> None:
    """Before anything is sent. Raises `NoAnswer` for another certificate."""
    shown = connection.sock.getpeercert(binary_form=True) if isinstance(connection.sock, ssl.SSLSocket) else None
    if shown is None or not hmac.compare_digest(hashlib.sha256(shown).digest(), bytes.fromhex(pin)):
        raise NoAnswer("its certificate is not that of the server of this data directory")
