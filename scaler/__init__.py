"""Hybrid autoscaling: which instances of which functions run on which GPU, and how.

    observation ──> core.step ──> decision          pure: no clock, no files, no network
         ^              │
         │       forecast, policies, packing, capacity
    replay (simulator) and live backends are adapters of the same step

Needs numpy and pydantic; onnxruntime where a predictor is loaded; never torch or pandas.
"""

from __future__ import annotations
