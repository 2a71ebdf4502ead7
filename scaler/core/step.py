"""`Core.step`: from a state and an observation to the next state and a decision.

    reconcile    what there is                                    (scaler.core.reconcile)
    forecast     each function's rate, from its own arrivals      (scaler.forecast)
    correct      predicted times, by those observed               (scaler.core.correction)
    decide       what to change                                   (scaler.policies)
    check        what of that can be made                         (scaler.core.checking)

Pure: no clock, no file, no network; the same arguments give the same answer. What the object keeps besides
its arguments are tables, which could be computed anew at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rapp.errors import ConfigError
from rapp.recommend import Risk
from scaler.core.checking import Checker, check
from scaler.core.corrected import CorrectedTimes, bearable_spread, corrected
from scaler.core.correction import Correction, tag_of
from scaler.core.decision import Action, Decision, Drain, FunctionOutlook, Resize, Start
from scaler.core.observation import Observation
from scaler.core.reconcile import Fleet, Served, reconcile
from scaler.core.settings import Settings
from scaler.core.state import CoreState, FunctionState, Ordered
from scaler.errors import NoLatencySourceError
from scaler.forecast.base import Forecaster
from scaler.functions import FunctionSpec
from scaler.policies.base import Case, Policy
from scaler.sources.base import check_objective, memory_mib
from scaler.sources.partitions import in_steps
from scaler.sources.service_times import ServiceTimes

MOST_KEPT = 4096
"""Tables of corrected times kept: dozens for each of a hundred functions."""

_log = logging.getLogger(__name__)


class Core:
    """Decides for a set of functions.

    Args:
        functions: those served, each name once.
        times: by function: predicted execution times.
        forecaster: of their rates. policy: what decides.
        settings: the operator's choices.
        objectives_ms: by function: objectives, ms; default: the spec's, counted from `times`. Replays give
            them, where the objective counts from the truth and `times` are a prediction.

    Raises:
        ConfigError: two functions have one name.
        NoLatencySourceError: a function without times.
        InfeasibleError: an objective below the function's fastest configuration.
    """

    def __init__(
        self,
        functions: Sequence[FunctionSpec],
        times: Mapping[str, ServiceTimes],
        forecaster: Forecaster,
        policy: Policy,
        settings: Settings | None = None,
        objectives_ms: Mapping[str, float] | None = None,
    ) -> None:
        self.forecaster, self.policy = forecaster, policy
        self.settings = Settings() if settings is None else settings
        self.served: dict[str, Served] = {}
        for spec in functions:
            if spec.name in self.served:
                raise ConfigError(f"function {spec.name}: two functions have this name")
            if spec.name not in times:
                raise NoLatencySourceError(f"function {spec.name}: no execution times are given for it")
            predicted = times[spec.name]
            slo_ms = (objectives_ms or {}).get(spec.name) or spec.objective_ms(predicted.base_ms())
            check_objective(spec, slo_ms, predicted)
            self.served[spec.name] = Served(spec, predicted, slo_ms, memory_mib(spec, predicted))
        self._corrected: dict[tuple[str, float, float, float, float], CorrectedTimes] = {}
        self._gated = {name for name, served in self.served.items() if served.times.gate is not None}
        self._in_steps: dict[tuple[str, float], ServiceTimes] = {}

    def step(
        self, state: Mapping[str, Any] | None, observation: Observation
    ) -> tuple[dict[str, Any], Decision]:
        """Decide at one tick.

        Args:
            state: what the step before answered; None or {}: a restart.
            observation: what is seen now.

        Returns:
            The state for the next step, JSON, and what to change.

        Raises:
            StateError: a state that this version cannot read.
        """
        known = self._known(state, observation.now_s)
        fleet = reconcile(known, observation, self.served, self.settings)
        self._forecast(known, observation)
        self._correct(known, fleet)
        cases = self._cases(known, observation, fleet)
        for case in cases:
            known.functions[case.spec.name].lost = 0
        checker = Checker.of(fleet, self.served, {case.spec.name for case in cases})
        memory = self.policy.start() if known.memory is None else known.memory
        known.memory, wanted, capacity = self.policy.decide(memory, observation.now_s, cases, fleet.pool)
        room = self.settings.most_actions
        forced, later = fleet.drains[:room], fleet.drains[room:]
        actions, dropped = check(wanted, checker, room - len(forced))
        dropped += [(drain, f"more than {room} changes in a tick") for drain in later]
        decided: tuple[Action, ...] = (*forced, *actions)
        _remember(known, observation.now_s, self._gated, decided)
        outlook = {case.spec.name: _outlook(case, capacity.get(case.spec.name, 0.0), known) for case in cases}
        return known.to_json(), Decision(decided, outlook, tuple(dropped))

    def _known(self, state: Mapping[str, Any] | None, now_s: float) -> CoreState:
        known = CoreState.of_json(state)
        if known.now_s is not None and now_s < known.now_s:
            _log.warning("the clock went back from %.3f to %.3f s: the state is dropped", known.now_s, now_s)
            known = CoreState()
        if known.forecaster != self.forecaster.name:
            if known.forecaster:
                _log.warning("forecasts start afresh: they were of %s", known.forecaster)
            for one in known.functions.values():
                one.forecast = self.forecaster.initial()
            known.forecaster = self.forecaster.name
        if known.policy != self.policy.name:
            if known.policy:
                _log.warning("the policy's memory starts afresh: it was of %s", known.policy)
            known.policy, known.memory = self.policy.name, None
        functions: dict[str, FunctionState] = {}
        for name, served in self.served.items():
            tag = tag_of(served.times)
            new = FunctionState(self.forecaster.initial(), Correction(tag), now_s)
            functions[name] = known.functions.get(name, new)
            if functions[name].correction.tag != tag:
                functions[name].correction = Correction(tag)
        known.functions = functions
        return known

    def _forecast(self, known: CoreState, observation: Observation) -> None:
        """Each function's forecast moves on; one that was not counted has its state told so."""
        now_s = observation.now_s
        known_dt_s = self.settings.tick_s if known.now_s is None else now_s - known.now_s
        for name, one in known.functions.items():
            view = observation.functions.get(name)
            arrivals = None if view is None else view.arrivals
            if known_dt_s > 0:
                one.forecast = self.forecaster.update(one.forecast, now_s, arrivals, known_dt_s)
            # Time in which nothing was seen is not time without requests.
            if view is None or arrivals is None or arrivals or view.queue or view.in_flight:
                one.busy_s = now_s

    def _correct(self, known: CoreState, fleet: Fleet) -> None:
        for name, one in known.functions.items():
            starting = fleet.is_starting(name)
            if not (starting or one.disturbed):
                served = self.served[name]
                before = one.correction.pace.step
                one.correction = one.correction.updated(
                    served.times, served.spec.max_batch, fleet.reported.get(name, ())
                )
                if one.correction.pace.step != before:
                    _log.info("%s: execution times x %.2f", name, one.correction.pace.value)
            one.disturbed = starting

    def _cases(self, known: CoreState, observation: Observation, fleet: Fleet) -> list[Case]:
        settings, now_s = self.settings, observation.now_s
        dt_s = settings.tick_s if known.now_s is None else now_s - known.now_s
        sm_step_pct = max((gpu.sm_step_pct for gpu in observation.gpus), default=0.0)
        cases = []
        for name, served in self.served.items():
            view, one = observation.functions.get(name), known.functions[name]
            one.lost += fleet.lost.get(name, 0)
            if view is None or view.arrivals is None:
                continue
            horizon_s = served.spec.cold_start_s + settings.tick_s
            cases.append(
                Case(
                    spec=served.spec,
                    slo_ms=served.slo_ms,
                    times=self._times(name, one.correction, sm_step_pct),
                    memory_mib=served.memory_mib,
                    members=tuple(fleet.members.get(name, ())),
                    rate_rps=view.arrivals / dt_s if dt_s > 0 else None,
                    forecast=self.forecaster.forecast(one.forecast, horizon_s, settings.quantile),
                    soon=self.forecaster.forecast(one.forecast, settings.tick_s, settings.quantile),
                    queue=view.queue,
                    in_flight=view.in_flight,
                    latency_ms=view.latency_ms,
                    idle_s=now_s - one.busy_s,
                    lost=one.lost,
                )
            )
        return cases

    def _times(self, name: str, correction: Correction, sm_step_pct: float) -> CorrectedTimes:
        spread = correction.spread if self.settings.risk == Risk.UPPER else 0.0
        key = (name, correction.device.value, correction.pace.value, spread, sm_step_pct)
        if key not in self._corrected:
            if len(self._corrected) >= MOST_KEPT:
                self._corrected.clear()
            plain, served = self._plain(name, sm_step_pct), self.served[name]
            room_ms = served.slo_ms - served.spec.max_batch_delay_ms
            self._corrected[key] = corrected(
                plain,
                device_factor=key[1],
                pace_factor=key[2],
                spread=min(spread, bearable_spread(plain, key[2], room_ms)),
            )
        return self._corrected[key]

    def _plain(self, name: str, sm_step_pct: float) -> ServiceTimes:
        """Predicted times at the SM partitions that can be had, the same object each time."""
        if sm_step_pct <= 0:
            return self.served[name].times
        key = name, sm_step_pct
        if key not in self._in_steps:
            self._in_steps[key] = in_steps(self.served[name].times, sm_step_pct)
        return self._in_steps[key]


def _remember(known: CoreState, now_s: float, gated: Collection[str], actions: Sequence[Action]) -> None:
    """Note what was decided, so that the next tick knows what is on its way.

    Args:
        gated: functions whose execution times depend on the quota.
    """
    known.now_s = now_s
    for action in actions:
        one = known.functions.get(action.function)
        if one is not None and (isinstance(action, Start) or action.function in gated):
            one.disturbed = True
        if isinstance(action, Start):
            known.ordered[action.id] = Ordered(action.function, action.gpu, action.row, action.config, now_s)
        elif isinstance(action, Drain):
            known.ordered.pop(action.id, None)
            known.alive.pop(action.id, None)
            known.draining[action.id] = now_s
        elif isinstance(action, Resize) and action.id in known.ordered:
            known.ordered[action.id] = known.ordered[action.id].resized(action.quota_pct, action.batch)


def _outlook(case: Case, capacity_rps: float, known: CoreState) -> FunctionOutlook:
    return FunctionOutlook(
        rate_rps=case.rate_rps,
        forecast_rps=case.forecast.mean_rps,
        upper_rps=case.forecast.upper_rps,
        capacity_rps=capacity_rps,
        correction=known.functions[case.spec.name].correction.pace.value,
        unmet_rps=max(case.forecast.upper_rps - capacity_rps, 0.0),
    )
