"""Replay: a discrete-event simulator that runs the core over a request trace."""

from __future__ import annotations
