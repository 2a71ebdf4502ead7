"""Forecasts of arrivals: one file each, behind `scaler.forecast.base.Forecaster`."""

from __future__ import annotations
