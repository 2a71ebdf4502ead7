"""Where the scaler's execution times come from: an exported predictor, a measured profile table, a constant.

source = open_source("models/v100")             # scaler.sources.opening
times = source.times(function)                  # ServiceTimes of one function's network
times.latency_ms(sm_pct=30, quota_pct=50, batch=4)
"""

from __future__ import annotations
