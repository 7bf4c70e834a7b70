"""A certificate authority of one's own, and a certificate by it: TLS on machines that no public authority can see.

Bots that insist on https (bot 6.3), and developers, get by with it. Whoever trusts the authority trusts everything
that its key signs, so that key stays private and its certificate says that it may sign hosts only.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from landline.errors import ConfigurationError
from landline.stores.directory import make

HOSTS = ("localhost", "127.0.0.1", "::1")

_NAME_CHARACTERS = 64
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*(?![0-9]+$){_LABEL}", re.ASCII)
"""A name whose last part is a number is an address that somebody has mistyped (RFC 3696, section 2)."""
_DNS_CHARACTERS = 253
_AUTHORITY_DAYS = 3650
_CERTIFICATE_DAYS = 397
"""Clients such as Safari take no certificate that lives longer."""


class Files(NamedTuple):
    """The files in a directory, all PEM."""

    ca: Path
    ca_key: Path
    certificate: Path
    key: Path

    @classmethod
    def within(cls, directory: Path) -> Files:
        """How they are called."""
        return cls(*(directory / name for name in ("ca.pem", "ca-key.pem", "cert.pem", "key.pem")))


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificate(directory: Path, hosts: Sequence[str], now: dt.datetime) -> Files:
    """Write a new certificate for `hosts`, names and addresses, with its key. The authority that signs it is made if
    the directory has none, and stays if it has: who trusts it needs to be told nothing. Raises `ConfigurationError`."""
    paths = Files.within(directory)
    names = [_host(host) for host in hosts]
    try:
        if not directory.exists():
            make(directory)
        authority = _authority(paths, now)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(names, key, authority, now)
        _write(paths.key, _private(key), secret=True)
        _write(paths.certificate, _public(certificate) + _public(authority.certificate), secret=False)
    except OSError as error:
        raise ConfigurationError(f"dev-cert: {error.filename or directory}: {error.strerror}") from error
    return paths


def fingerprint(certificate: Path) -> str:
    """Names the certificate in a PEM file, the first if there are several: SHA-256, hexadecimal."""
    return _first(certificate).fingerprint(hashes.SHA256()).hex()


def end_of(certificate: Path) -> dt.datetime:
    """When the certificate in a PEM file, the first if there are several, ends."""
    return _first(certificate).not_valid_after_utc


def _first(certificate: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0]


def _authority(paths: Files, now: dt.datetime) -> _Authority:
    if paths.ca.exists() and paths.ca_key.exists():
        return _existing(paths, now)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Landline's authority on {platform.node()}"[:_NAME_CHARACTERS])
    certificate = (
        _unsigned(name, name, key.public_key(), now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(paths.ca_key, _private(key), secret=True)
    _write(paths.ca, _public(certificate), secret=False)
    return _Authority(certificate, key)


def _existing(paths: Files, now: dt.datetime) -> _Authority:
    try:
        certificate = x509.load_pem_x509_certificate(paths.ca.read_bytes())
        key = serialization.load_pem_private_key(paths.ca_key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"dev-cert: {paths.ca} and {paths.ca_key} are no authority of ours") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"dev-cert: {paths.ca_key} is not the key of {paths.ca}")
    if certificate.not_valid_after_utc < now + dt.timedelta(days=_CERTIFICATE_DAYS):
        raise ConfigurationError(f"dev-cert: {paths.ca} ends too soon; remove it and its key, and trust a new one")
    return _Authority(certificate, key)


def _certificate(
    names: Sequence[x509.GeneralName], key: ec.EllipticCurvePrivateKey, authority: _Authority, now: dt.datetime
) -> x509.Certificate:
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        _unsigned(_name("Landline"), authority.certificate.subject, key.public_key(), now, _CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    """A name or an address as certificates have it. Raises `ConfigurationError` for what nobody could connect to."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _DNS_NAME.fullmatch(name) or len(name) > _DNS_CHARACTERS:
        raise ConfigurationError(
            f"dev-cert: {host!r} is no host: name one such as landline.internal or 10.0.0.7, without anything around it"
        )
    return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, *, secret: bool) -> None:
    """A key is private from its first byte on, and a reader finds the old file or the new one."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    mode = 0o600 if secret else 0o644
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    aside.chmod(mode)  # with a narrow umask nobody else could read the authority's certificate, which they have to
    aside.replace(path)
