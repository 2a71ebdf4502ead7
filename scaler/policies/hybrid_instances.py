"""`Instances`: those of one function at one tick of `hybrid`, with the changes made to them so far.

Every change is tried on the pool at once, so that what comes after it sees the room that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rapp.types import ResourceConfig
from scaler.capacity.fleet import Share, least_quotas, most_rate_rps
from scaler.capacity.plans import PlanTable
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need, latency_ms
from scaler.core.observation import Phase
from scaler.gpu import Need
from scaler.packing import TOLERANCE, PackingError, Pool
from scaler.policies import hybrid_fleets, hybrid_room
from scaler.policies.base import Case, Member, new_id
from scaler.policies.hybrid_demand import Demand
from scaler.policies.hybrid_fleets import Fleet

SLACK = 0.08
"""Part by which a quota may be larger than needed before it is lowered: changes that hardly save anything are
as many calls to workers."""


class Instances:
    """The instances of one function.

    Args:
        case: the function. now_s: time of the tick. pool: all GPUs; it is changed.
        table: plans of the function. demand: in rates of the table.

    Attributes:
        live: the instances by id, with what was changed.
    """

    def __init__(self, case: Case, now_s: float, pool: Pool, table: PlanTable, demand: Demand) -> None:
        self._case, self._now_s, self._pool, self._table, self._demand = case, now_s, pool, table, demand
        self.live = {member.id: member for member in case.members}
        self._started = 0

    def of(self, sm_pct: float) -> list[Member]:
        """Those of an SM partition."""
        return [member for member in self.live.values() if member.config.sm_pct == sm_pct]

    def apart_from(self, sm_pct: float) -> list[Member]:
        """The others."""
        return [member for member in self.live.values() if member.config.sm_pct != sm_pct]

    def best_group(self) -> Fleet | None:
        """Of the groups of like instances that are there the one that serves most; None: there are none."""
        by_sm: dict[float, int] = {}
        for member in self.live.values():
            by_sm[member.config.sm_pct] = by_sm.get(member.config.sm_pct, 0) + 1
        groups = (Fleet(number, sm) for sm, number in by_sm.items())
        return max(groups, key=lambda one: (hybrid_fleets.most_rps(self._table, one), one), default=None)

    def rate_rps(self) -> float:
        """What they serve within the objective at the quotas that they could have; a rate of the table."""
        return most_rate_rps(self._table, self._shares(self.live.values()))

    # --- a fleet that is to be ----------------------------------------------------------------------------

    def missing(self, fleet: Fleet) -> int:
        """How many instances of a fleet are not there."""
        own = sum(member.config.sm_pct == fleet.sm_pct for member in self.live.values())
        return max(fleet.number - own, 0)

    def room(self, fleet: Fleet) -> int:
        """How many of the instances that are missing there is room for."""
        return hybrid_room.room(self._pool, self._need(self.config(fleet)), self.missing(fleet))

    def room_without_them(self, least: int) -> Callable[[float, int], int]:
        """How many instances of an SM partition there were room for, up to a number, if these were gone.

        Args:
            least: instances whose quota is to be had room for.
        """
        freed = self._pool.copy()
        for id_ in self.live:
            freed.remove(id_)

        def fits(sm_pct: float, most: int) -> int:
            return hybrid_room.room(freed, self._need(self.config(Fleet(least, sm_pct))), most)

        return fits

    def config(self, fleet: Fleet) -> ResourceConfig:
        """Configuration of each instance of a fleet, once all are there."""
        shares = [Share(fleet.sm_pct)] * fleet.number
        return least_quotas(self._table, shares, self._demand.ahead).configs[0]

    # --- changes ------------------------------------------------------------------------------------------

    def start(self, fleet: Fleet, reason: Reason) -> Action | None:
        """Start one instance of a fleet; None: there is no room for it."""
        config = self.config(fleet)
        takes = self._need(config)
        place = hybrid_room.place(self._pool, takes)
        if place is None:
            return None
        id_ = new_id(self._case.spec.name, self._now_s, self._started)
        self._started += 1
        self._pool.add(id_, *place, takes)
        self.live[id_] = Member(id_, *place, config, Phase.STARTING, self._now_s)
        return Start(id_, self._case.spec.name, *place, config, reason)

    def drain(self, members: Sequence[Member], reason: Reason) -> list[Action]:
        """Drain some of them; each keeps its room until its last request is answered."""
        for member in members:
            del self.live[member.id]
        return [Drain(member.id, self._case.spec.name, reason) for member in members]

    def least_quotas(self, demand_rps: float) -> dict[str, ResourceConfig]:
        """Quota and batch of each instance that is ready; one that starts has what it will need.

        Args:
            demand_rps: a rate of the table, with what empties the queue.
        """
        members = [member for member in self.live.values() if member.phase == Phase.READY]
        shares = self._shares(members)
        configs, served_rps = least_quotas(self._table, shares, demand_rps)
        if served_rps < demand_rps and (self._demand.backlog > 0 or served_rps == 0):
            # What waits is late already, or all will be: the way out is to serve most in any time.
            configs = [self._flat_out(share) for share in shares]
        return {member.id: config for member, config in zip(members, configs, strict=True)}

    def resizes(self, wanted: Mapping[str, ResourceConfig], *, up: bool) -> list[Action]:
        """Quotas, larger or smaller ones, and batches."""
        found: list[Action] = []
        for id_, config in wanted.items():
            member = self.live[id_]
            before = member.config
            grows = config.quota_pct > before.quota_pct + TOLERANCE
            little = (1.0 - SLACK) * before.quota_pct < config.quota_pct <= before.quota_pct
            if grows != up or (little and config.batch <= before.batch):
                continue
            try:
                self._pool.resize(id_, self._need(config))
            except PackingError:
                continue
            self.live[id_] = Member(id_, member.gpu, member.row, config, member.phase, member.since_s)
            reason = Reason.DEMAND_DOWN
            if grows:
                reason = Reason.BACKLOG if self._demand.backlog > 0 else Reason.DEMAND_UP
            found.append(Resize(id_, self._case.spec.name, config.quota_pct, config.batch, reason))
        return found

    def _shares(self, members: Iterable[Member]) -> list[Share]:
        return [
            Share(member.config.sm_pct, member.config.quota_pct + self._room_to_grow(member))
            for member in members
        ]

    def _room_to_grow(self, member: Member) -> float:
        """An equal part of what its row has left: its neighbours may want the rest."""
        place = self._pool.where(member.id)
        if place is None:
            return 0.0
        row = self._pool.gpus[place[0]].rows[place[1]]
        return max(row.free_quota_pct, 0.0) / len(row.needs)

    def _flat_out(self, share: Share) -> ResourceConfig:
        """The configuration with the largest throughput."""
        quota_pct = min(share.most_quota_pct, 100.0)
        configs = [ResourceConfig(share.sm_pct, quota_pct, batch) for batch in self._table.batches]
        most = self._case.spec.max_batch
        return max(configs, key=lambda one: one.batch / latency_ms(self._case.times, one, most))

    def _need(self, config: ResourceConfig) -> Need:
        return instance_need(self._case.spec, self._case.times, self._case.memory_mib, config)
