"""Serving: a gateway and one worker process per instance, which is resized while it serves."""

from __future__ import annotations
