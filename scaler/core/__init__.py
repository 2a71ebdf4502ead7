"""The pure middle: what is seen, what is decided, and the step from one to the other."""

from __future__ import annotations
