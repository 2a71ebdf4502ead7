"""Live control: the core on a real clock, and the load to try it with."""

from __future__ import annotations
