"""Who may look at the status page's data without the token: people on this machine, and nobody else."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from scaler.serving.token import is_authorized

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a proxy: its own address says nothing about who asks."""

LOOK = "from elsewhere than this machine the status needs the token: Authorization: Bearer"
"""What who may not look is told."""


def may_look(request: Request, token: str) -> bool:
    """Whether a request may read what is served and decided; it holds nobody's requests or answers.

    Without the token it has to come from a loopback address, ask for a loopback host and pass no proxy. The
    host is looked at because of DNS rebinding: a page of another site, whose name is made to mean 127.0.0.1,
    could read the answer in the browser of somebody on this machine.
    """
    if is_authorized(request.headers.get("authorization"), token):
        return True
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.client.host) and _is_loopback(_host(request.headers.get("host", "")))


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
