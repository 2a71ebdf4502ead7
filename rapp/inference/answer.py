"""From a network's prior and its measured points to its curves: which posterior answers."""

from __future__ import annotations

from rapp.inference.mixture import RegimePosterior
from rapp.inference.posterior import Curves, Observations, Prior, infer_curves
from rapp.inference.structure import Structure
from rapp.knots import Knots

REGIMES_FROM, REGIMES_TO = 12, 100
"""Points of a launch gate with which the mixture over regimes answers. Up to 11 the interval factors of
artifacts are those of the plain posterior; with a hundred the points say by themselves where the host
changes, and the mixture would take seconds."""


def answer_curves(prior: Prior, structure: Structure, knots: Knots, points: Observations) -> Curves:
    """The curves of a network with K measured points, none to many."""
    if REGIMES_FROM <= len(points) <= REGIMES_TO and not points.gpu_time.any():
        return RegimePosterior(prior, structure, knots, points).curves()
    return infer_curves(prior, structure, knots, points)
