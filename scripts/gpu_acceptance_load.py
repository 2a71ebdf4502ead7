"""A program that runs a network on the GPU as fast as it can and knows of no quota: what the library gates.

    python scripts/gpu_acceptance_load.py NET.onnx SECONDS

RAPP_QUOTA_BLOCK names the library's block. Prints the runs of a second, and the share of device time that the
library charged, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from rapp.graph import with_batch
from rapp.runtime.cuda_session import BoundNetwork, cuda_session
from rapp.runtime.driver import Driver
from rapp.runtime.inputs import seeded_inputs
from rapp.runtime.quota import QuotaBlock

WARM_UP_S = 1.0


def main() -> None:
    """Warm up, then count."""
    path, seconds = Path(sys.argv[1]), float(sys.argv[2])
    with Driver().context(0) as context, context.stream() as stream:
        session = cuda_session(with_batch(path, 1).SerializeToString(), stream=stream.handle)
        network = BoundNetwork(session, seeded_inputs(session, 1))

        def run_for(duration_s: float) -> tuple[int, float]:
            begun_s, runs = time.monotonic(), 0
            while time.monotonic() - begun_s < duration_s:
                network.launch()
                stream.synchronize()
                runs += 1
            return runs, time.monotonic() - begun_s

        run_for(WARM_UP_S)  # uses up the credit of the full bucket too
        with QuotaBlock.open(os.environ["RAPP_QUOTA_BLOCK"]) as block:
            before_ms = block.statistics.used_ms
            runs, took_s = run_for(seconds)
            share_pct = (block.statistics.used_ms - before_ms) / (10 * took_s)
    print(json.dumps({"runs_per_s": runs / took_s, "share_pct": share_pct}))


if __name__ == "__main__":
    main()
