"""The server that a load goes to."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rapp.errors import ConfigError
from scaler.errors import BackendError

ASK_TIMEOUT_S = 10.0
"""Time for a question about a model; nothing waits behind it."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go.

    Args:
        url: as given. address: IP address, resolved once. port: of TCP.
        host: name for TLS. authority: for the header Host. prefix: path before `/v2`. tls: it is https.
    """

    url: str
    address: str
    port: int
    host: str
    authority: str
    prefix: str
    tls: bool

    @classmethod
    def at(cls, url: str) -> Server:
        """Resolve a URL, and see that somebody listens there.

        Raises:
            ConfigError: no http:// or https:// URL.
            BackendError: nobody answers.
        """
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ConfigError(f"--url {url}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url {url}: write http://HOST:PORT")
        try:
            with socket.create_connection((parts.hostname, port), timeout=ASK_TIMEOUT_S) as tried:
                address = tried.getpeername()[0]
        except OSError as error:
            raise BackendError(
                f"{url}: nobody answers there ({error.strerror or error}): start `rapp serve`,"
                " or name its port"
            ) from error
        authority = parts.netloc.rpartition("@")[2]
        prefix = parts.path.rstrip("/")
        return cls(url, address, port, parts.hostname, authority, prefix, parts.scheme == "https")

    def tls_context(self) -> ssl.SSLContext | None:
        """For a connection; None: without TLS."""
        return ssl.create_default_context() if self.tls else None

    def get_json(self, path: str) -> Any:
        """Ask for a JSON document, with a connection of its own.

        Raises:
            BackendError: no answer, another status than 200, or no JSON.
        """
        connection = (
            http.client.HTTPSConnection(
                self.host, self.port, timeout=ASK_TIMEOUT_S, context=self.tls_context()
            )
            if self.tls
            else http.client.HTTPConnection(self.address, self.port, timeout=ASK_TIMEOUT_S)
        )
        try:
            connection.request("GET", path, headers={"Host": self.authority, "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BackendError(f"{self.url}: no answer to GET {path} ({error!r})") from error
        finally:
            connection.close()
        if answer.status != 200:
            told = " ".join(body[:200].decode("utf-8", "replace").split())
            raise BackendError(f"{self.url}: GET {path} is answered with {answer.status}: {told}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise BackendError(f"{self.url}: the answer to GET {path} is no JSON: {error}") from error
