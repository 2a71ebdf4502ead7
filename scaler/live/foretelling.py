"""What a replay foretells of a trial: same functions, arrivals, core and policy, on a simulated machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rapp.profiles import PairTable
from rapp.types import FloatArray
from scaler.core.observation import GpuView
from scaler.forecast.registry import forecaster
from scaler.live.trial import Outcome
from scaler.live.trial_control import Controlled
from scaler.replay.runner import replay
from scaler.replay.setup import KNOW_DEMAND, Gpus, ReplaySetup


def foretold(
    given: Controlled,
    arrivals: Mapping[str, FloatArray],
    duration_s: float,
    device: GpuView,
    pairs: Path | None,
    seed: int,
) -> Outcome:
    """Replay a trial before, or after, it is made.

    Args:
        given: the controller; its plan is taken for the truth too: it was measured on this machine.
        arrivals, duration_s: as of the trial. device: what the server runs on.
        pairs: table of how networks slow each other; None: 1.10. seed: of the noise.

    Raises:
        RappError: as `ReplaySetup` and `replay`.
    """
    source = given.source()
    gpus = Gpus(1, device.memory_mib, device.host_cores, device.sm_step_pct)
    setup = ReplaySetup(
        given.functions,
        arrivals,
        source,
        source,
        duration_s,
        gpus=gpus,
        seed=seed,
        settings=given.settings,
        forecaster=forecaster(given.forecaster),
        pairs=None if pairs is None else PairTable.read(pairs),
    )
    # What is known of the demand beforehand is the trace's rate, as in the trial, not what came of it.
    known = {"demand": given.demand} if given.policy in KNOW_DEMAND else {}
    result = replay(setup, setup.policy(given.policy, **known))
    total, account = result.total, result.account
    outside_ms = {name: one.outside_ms for name, one in given.rehearsed.items()}
    # Of all together, as the functions' shares of the requests are.
    weights = {name: float(len(times)) for name, times in arrivals.items()}
    mean_ms = sum(weights[name] * outside_ms.get(name, 0.0) for name in weights) / sum(weights.values())
    return Outcome(
        total.gpu_seconds, total.violation_share, total.p50_ms + mean_ms, total.p99_ms + mean_ms,
        account.starts, account.resizes, account.drains,
    )  # fmt: skip
