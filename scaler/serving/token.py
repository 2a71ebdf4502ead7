"""The secret of the admin interface: from a file that only its owner can read, or from the environment."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from rapp.errors import RappError

VARIABLE = "RAPP_ADMIN_TOKEN"
"""Environment variable that holds the token itself."""
LEAST_CHARACTERS = 16


class TokenError(RappError):
    """A token that cannot be read, or that others can read."""


def default_token_file(port: int) -> Path:
    """Where `rapp serve` puts the token of a port, and where controllers of the same user look for it."""
    from rapp.runtime.claim import claims_root

    return claims_root() / f"serve-{port}.token"


def make_token_file(path: Path) -> str:
    """The token of a file; one that is not there is made, with a new token and mode 0600.

    Raises:
        TokenError: as `read_token_file`, or it cannot be written.
    """
    if path.exists():
        return read_token_file(path)
    token = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise TokenError(f"{path}: the token cannot be written: {error.strerror}") from error
    return token


def read_token_file(path: Path) -> str:
    """The token of a file.

    Raises:
        TokenError: it is not there, others may read it, or it holds none.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise TokenError(
            f"{path}: the token cannot be read ({reason}): is `rapp serve` running on that port? If its token"
            " is elsewhere, give --token-file"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise TokenError(f"{path}: others may read the token: chmod 600 {path}")
    return checked(token, str(path))


def checked(token: str, where: str) -> str:
    """The token, if it is one.

    Raises:
        TokenError: it is too short to be kept secret, or can be in no header.
    """
    if len(token) < LEAST_CHARACTERS or not (token.isascii() and token.isprintable() and " " not in token):
        raise TokenError(f"{where}: a token has {LEAST_CHARACTERS} printable characters or more, no spaces")
    return token


def is_authorized(header: str | None, token: str) -> bool:
    """Whether a header `Authorization` is `Bearer <token>`; takes as long for any that is not."""
    given = (header or "").encode("utf-8", "replace")
    return hmac.compare_digest(given, f"Bearer {token}".encode())
