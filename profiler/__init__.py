"""Profiling: networks over SM partition x time quota x batch on a device, into a profile table.

    plan ──> measure ──> journal ──> profile table
                │
             Device: cuda, cpu, replay

`plan` says which points, `campaign` measures them in order and keeps each one as soon as it ends, `devices`
run the networks. Everything but the devices, the worker process and the journal is pure.
"""

from __future__ import annotations
