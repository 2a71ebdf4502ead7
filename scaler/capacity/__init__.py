"""Capacity: the rate that instances can serve within an objective, and the cheapest instances for a rate.

waiting     how long requests wait in a queue with bulk service, tabulated
rate        from execution times, quota and objective to a rate
fleet       instances of unlike configurations
plans       from a rate to the cheapest instances
"""

from __future__ import annotations
