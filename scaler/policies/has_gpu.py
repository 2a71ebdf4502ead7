"""`HasGpu`: HAS-GPU's autoscaler as published (KontonGu/HAS-GPU, `internal/controller`, commit fe7105e).

Every 2 s, for each function:

    rate        arrivals over the last 10 s
    prediction  a scalar Kalman filter over the rate, biased upwards (`Kalman`)
    capacity    of an instance 1000 / (latency + 70 ms) x (batch + 1) / 2 rps; of a function the sum
    prediction > 0.9 capacity     more quota for its instances, most SMs first; then more instances
    prediction < 0.3 capacity     less quota, fewest SMs first; then fewer instances; at most each 10 s

The latency is that of the case's times: under a quota of device time, unless they were opened for one that
gates launches. HAS-GPU asks its own predictor (RaPP) at this place, or a hard-coded table.

Kept, since it is its design. No objective anywhere: throughput alone is scaled. 70 ms for what is not
inference and a mean fill of the batch, (batch + 1) / 2, cap an instance of batch 4 at 35.7 rps however fast
it is. The prediction ends 6.08 rps above a steady rate, whatever its scale. No allowance for cold starts:
what is starting counts as capacity. Nothing is scaled while no instance is ready. Quota is raised until the
missing rate is covered or the row is full, even where more quota brings nothing. A further instance gets the
quota of the largest capacity, not the smallest that suffices. The missing rate is added once, without the 0.9
that would have to be divided out. A GPU takes an instance by occupancy; SM partitions of new rows are
constants by the network's name, and never change.

Repaired, as plain bugs; file and function of each:

1. tmp_database.go, `embed.FS.ReadDir`: profiles that are never found, names that match no key, and missing
   cells of the table that count as capacity 0: every configuration has a latency, from the case's times.
2. persistentReconcile.go: one Kalman filter for all functions: one each.
3. has_autoscaling.go, HASFuncScaleUp, HASFuncScaleDown, addPodtoHASGPU: occupancy by integer division, always
   0: computed in floats, so that thresholds and orders work.
4. persistentReconcile.go, hasGPUs filled with every GPU, so that RetrieveNewGPU finds none, and rows of an
   untouched GPU are nil: scale-out to a second GPU could not happen: a GPU is used when something is on it.
5. GetMostEfficientConfig: panics without an argument in HASFuncScaleUp, and no entry of the table meets its
   35 rps: answers the default, SM 30, quota 30, batch 4, for which it falls through anyway.
6. HASFuncScaleUp: temporary names, under which rows and occupancy of a new instance are never found again,
   and an update emitted where nothing changes: placements are the pool's, and only changes are emitted.
7. HASFuncScaleUp: the SM of a free row read from a stale slice; capacity of batch 4 for an instance of
   another batch, and not computed anew when the row's SM replaces that of the instance: that of what it gets.
8. FindOptimalRowIdx, addPodtoHASGPU: SM partitions of two rows may sum to more than 100 %, quota of a row is
   not checked for the first instance, memory never: all are checked, host cores too. A row that is empty is
   free again.
9. HASFuncScaleUp: the loop ends after one pass, since newGPUs is always empty: it goes on until the rate is
   covered or nothing more fits; the last resort, an instance of quota 10, tries every GPU.
10. persistentReconcile.go, request rate: completed invocations of one status code, under saturation not the
    demand: arrivals.
11. fastfunc_controller.go: deleted functions leak, a failed first instance is never tried again: both follow
    from what is observed.

Ours, as all policies have it: `min_instances`, zero by `idle_to_zero_s`, `initial` in place of the default
configuration, at most `max_batch`, and instances that drain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaler.core.decision import Action
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies import has_gpu_rows as rows
from scaler.policies import windows
from scaler.policies.base import Case, Memory
from scaler.policies.changes import Changes, Remembered, decide_each, nothing_decided
from scaler.policies.has_gpu_scaling import DOWN_COOLDOWN_S, first, scale, total_rps

TICK_S = 2.0
"""Time between decisions, s (persistentReconcile.go)."""

RATE_WINDOW_S = 10.0
"""What a rate is taken over, s: `rate(gateway_function_invocation_total[10s])`."""


@dataclass(frozen=True, slots=True)
class Kalman:
    """The request predictor (request_predictor_kalman.go): A = H = 1, and a bias that adds up.

    The bias is added to the state itself: at a steady rate z the state ends at z + sqrt(P) / K = z + 6.08.

    Args:
        x_rps: state. p: its variance, rps^2.
    """

    x_rps: float = 0.0
    p: float = 1.0

    Q, R, ALPHA, AHEAD_RPS = 1.0, 10.0, 1.0, 5.0

    def after(self, rate_rps: float) -> Kalman:
        """The filter after one more rate; its state is the prediction."""
        p = self.p + self.Q
        gain = p / (p + self.R)
        left = (1 - gain) * p
        x_rps = self.x_rps + gain * (rate_rps - self.x_rps) + self.ALPHA * math.sqrt(left)
        return Kalman(max(x_rps, rate_rps + self.AHEAD_RPS), left)


@dataclass(frozen=True, slots=True)
class HasGpu:
    """HAS-GPU's hybrid autoscaling, with its constants."""

    @property
    def name(self) -> str:
        """`has-gpu`."""
        return "has-gpu"

    def start(self) -> Memory:
        """No decision yet, nothing counted."""
        return nothing_decided()

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`. The rates answered are capacities as HAS-GPU counts them."""
        return decide_each(memory, now_s, TICK_S, cases, pool, _decide)


def _decide(changes: Changes, known: Remembered | None, due: bool) -> tuple[Remembered, float]:
    case, now_s = changes.case, changes.now_s
    state: Remembered = {"rates": [], "kalman": [0.0, 1.0], "down_s": None} if known is None else dict(known)
    state["rates"] = windows.added(state["rates"], now_s, case.rate_rps, RATE_WINDOW_S)
    least = changes.keep_fewest(lambda reason: rows.start_first(changes, first(case), reason))
    rate_rps = windows.mean(state["rates"], now_s, RATE_WINDOW_S)
    if due and rate_rps is not None:
        kalman = Kalman(*state["kalman"]).after(rate_rps)
        state["kalman"] = [kalman.x_rps, kalman.p]
        if least > 0 and any(member.phase == Phase.READY for member in case.members):
            cooled = state["down_s"] is None or now_s - state["down_s"] >= DOWN_COOLDOWN_S
            if scale(changes, kalman.x_rps, may_go_down=cooled, least=least):
                state["down_s"] = now_s
    return state, total_rps(changes)
