"""Backends: what runs the instances that the core decides about, behind one protocol."""

from __future__ import annotations
