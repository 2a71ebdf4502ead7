"""What a replay foretells of a trial: same functions, arrivals, core and policy, on a simulated machine."""

from __future__ import annotations

from collections.abc import Mapping

from rapp.types import FloatArray
from scaler.core.observation import GpuView
from scaler.forecast.registry import forecaster
from scaler.live.trial import Outcome
from scaler.live.trial_control import Controlled
from scaler.replay.runner import replay
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.opening import open_source


def foretold(
    given: Controlled, arrivals: Mapping[str, FloatArray], duration_s: float, device: GpuView, seed: int
) -> Outcome:
    """Replay a trial before, or after, it is made.

    Args:
        given: the controller; its plan is taken for the truth too: it was measured on this machine.
        arrivals, duration_s: as of the trial. device: what the server runs on. seed: of the noise.

    Raises:
        RappError: as `ReplaySetup` and `replay`.
    """
    source = open_source(given.plan)
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
    )
    result = replay(setup, setup.policy(given.policy))
    total, account = result.total, result.account
    return Outcome(
        total.gpu_seconds, total.violation_share, total.p50_ms, total.p99_ms,
        account.starts, account.resizes, account.drains,
    )  # fmt: skip
