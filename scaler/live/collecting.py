"""No garbage collection while a decision is made.

A full collection looks at all objects: some 40 ms in `scripts/bench_step.py` with a hundred functions, where
a decision takes 25. Most of the time a controller waits for its next tick; what was due is collected then.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect nothing within; what was due is collected by Python after it, if it was collecting before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep_what_is_built() -> None:
    """Leave out of all later collections what there is now: modules and tables, which live to the end."""
    gc.collect()
    gc.freeze()
