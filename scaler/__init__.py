"""Hybrid autoscaling: which instances of which functions run on which GPU, and how."""

from __future__ import annotations
