"""Certificates: read, tried out before anybody relies on them, and read again when their files change."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from corral.config import CertReqs, ServerConfig
from corral.errors import InvalidConfig

_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PEM_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a server shows, and what it asks of its clients.

    Args:
        context: for new connections.
        ends: when the certificate does, as in the certificate.
        files: that all of it was read from, as they were then.
    """

    context: ssl.SSLContext
    ends: str
    files: tuple[tuple[str, int, int], ...]


def read_certificates(config: ServerConfig) -> Certificates | None:
    """The certificates that the settings name; None if they name none.

    Raises:
        InvalidConfig: says of which file why it cannot be used: unreadable, another's key, expired, no CA.
    """
    certificate = config.ssl_certfile
    if certificate is None:
        for name in ("ssl_keyfile", "ssl_ca_certs", "ssl_cert_reqs"):
            if getattr(config, name) is not None:
                raise InvalidConfig(f"--{name.replace('_', '-')} means nothing without --ssl-certfile")
        return None
    files = signature(config)
    context = _context_with_chain(certificate, config.ssl_keyfile)
    ends = _rehearse(_context_with_chain(certificate, config.ssl_keyfile), certificate)
    context.verify_mode = _REQS[client_certificates(config)]
    if config.ssl_ca_certs is not None:
        _read(config.ssl_ca_certs, "--ssl-ca-certs", _PEM_CERTIFICATE, "certificate")
        try:
            context.load_verify_locations(config.ssl_ca_certs)
        except ssl.SSLError as error:
            raise InvalidConfig(f"--ssl-ca-certs {config.ssl_ca_certs} cannot be used: {_words(error)}") from None
    return Certificates(context, ends, files)


def client_certificates(config: ServerConfig) -> CertReqs:
    """Whether clients have to show one: as set, else if there is somebody to vouch for them.

    Raises:
        InvalidConfig: they are asked for one, and nobody can vouch for it.
    """
    if config.ssl_cert_reqs not in (None, "none") and config.ssl_ca_certs is None:
        raise InvalidConfig(
            f"--ssl-cert-reqs {config.ssl_cert_reqs} needs --ssl-ca-certs: the authorities that vouch for clients"
        )
    return config.ssl_cert_reqs or ("required" if config.ssl_ca_certs is not None else "none")


def signature(config: ServerConfig) -> tuple[tuple[str, int, int], ...]:
    """Changes when one of the files does; a link that points elsewhere now is a change."""
    return tuple(
        _stamp(path) for path in (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs) if path is not None
    )


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return path, 0, 0
    return path, found.st_ino, found.st_mtime_ns


def _context_with_chain(certificate: str, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _read(certificate, "--ssl-certfile", _PEM_CERTIFICATE, "certificate")
    key_flag = "--ssl-keyfile" if key is not None else "--ssl-certfile"
    key_text = _read(key or certificate, key_flag, _PEM_KEY, "private key")
    if "ENCRYPTED" in key_text:
        raise InvalidConfig(
            f"{key_flag} {key or certificate} is encrypted, and nobody is there to type its passphrase; "
            "give the key without one, readable to the server alone"
        )
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidConfig(f"the key in {key or certificate} is not that of certificate {certificate}") from None
        raise InvalidConfig(
            f"--ssl-certfile {certificate} and its key in {key or certificate} cannot be used: {_words(error)}"
        ) from None
    return context


def _read(path: str, flag: str, pattern: re.Pattern[str], what: str) -> str:
    """The text of a file that holds one `what` in PEM at least. Raises InvalidConfig."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidConfig(f"{flag} {path} cannot be read: {error.strerror or error}") from None
    if not pattern.search(text):
        raise InvalidConfig(f"{flag} {path} holds no {what} in PEM form")
    return text


def _rehearse(context: ssl.SSLContext, certificate: str) -> str:
    """Shakes hands in memory with a client that trusts this certificate and no other; when the certificate ends.

    Raises:
        InvalidConfig: no client could use it: it is expired, not valid yet, or for another purpose.
    """
    chain = _PEM_CERTIFICATE.findall(Path(certificate).read_text(encoding="utf-8", errors="replace"))
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cadata="\n".join(chain))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(3):  # flights of a handshake
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError as error:
        raise InvalidConfig(f"the certificate {certificate} is of no use to clients: {_words(error)}") from None
    return str((client.getpeercert() or {}).get("notAfter", ""))


def _words(error: ssl.SSLError) -> str:
    """What OpenSSL says, without the place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()
