"""The cheapest configurations that meet a latency objective under a load.

    from rapp.recommend import Objective, recommend

    found = recommend(network, Objective(slo_ms=60, rps=100))
    found.best.config, found.best.instances, found.best.gpu_share

Needs numpy alone.
"""

from __future__ import annotations

from rapp.recommend.objective import Objective, Risk
from rapp.recommend.options import Choice, Options, price
from rapp.recommend.search import Recommendation, UnmetObjectiveError, recommend

__all__ = [
    "Choice",
    "Objective",
    "Options",
    "Recommendation",
    "Risk",
    "UnmetObjectiveError",
    "price",
    "recommend",
]
