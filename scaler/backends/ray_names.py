"""What RaPP's actors in a Ray cluster are called: `ray.get_actor(ROUTER, namespace=NAMESPACE)`."""

from __future__ import annotations

NAMESPACE, ROUTER, LEASE = "rapp", "rapp-router", "rapp-lease"

ON_HEAD = {"node:__internal_head__": 0.001}
"""Keeps an actor on the head node, without which there is no cluster."""

ANSWER_TIMEOUT_S = 30.0
"""For these actors, which answer within milliseconds once they run: so long for their processes to start."""
