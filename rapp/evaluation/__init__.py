"""Scoring an artifact against measured profiles.

    from rapp.evaluation import evaluate, score, bootstrap_mean

    predictor = Predictor.load("models/v100")
    found = evaluate(predictor, ProfileTable.read("t4.parquet"), "datasets/graphs", points=5)
    found.pooled.mape, found.mape_interval, found.to_dict()

Needs pyarrow, and onnxruntime through the predictor.
"""

from __future__ import annotations

from rapp.evaluation.evaluate import evaluate
from rapp.evaluation.points import ChosenPoint, choose_points, distance
from rapp.evaluation.result import Evaluation, NetworkResult, ScoredRows
from rapp.evaluation.scores import Scores, bootstrap_mean, log_interval_score, score
from rapp.evaluation.source import artifact_folder

__all__ = [
    "ChosenPoint",
    "Evaluation",
    "NetworkResult",
    "ScoredRows",
    "Scores",
    "artifact_folder",
    "bootstrap_mean",
    "choose_points",
    "distance",
    "evaluate",
    "log_interval_score",
    "score",
]
