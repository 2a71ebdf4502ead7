"""The devices that can be profiled: one module each, behind `profiler.device.Device`."""

from __future__ import annotations
