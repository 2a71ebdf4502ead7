"""The policies: one file each, behind `scaler.policies.base.Policy`."""

from __future__ import annotations
