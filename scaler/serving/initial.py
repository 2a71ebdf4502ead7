"""Which instances a server starts with: those that functions.yaml names, or a fair share of the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Reason, Start
from scaler.functions import FunctionSpec
from scaler.serving.devices import ServingDevice
from scaler.serving.placement import Occupant, why_no_room


def initial_decision(
    functions: Sequence[FunctionSpec],
    memory_mib: Mapping[str, float],
    device: ServingDevice,
    whole_units: int | None,
) -> Decision:
    """The instances to start: `min_instances` of each function, placed by first fit.

    A function with `initial` gets that; the others share what is left of the SMs (or cores) evenly, in rows
    that they share if there are more of them than cores.

    Args:
        memory_mib: by function, of one instance.
        whole_units: cores of a device whose partitions are whole cores; None: any percentage.

    Raises:
        ConfigError: they do not fit.
    """
    counts = {spec.name: spec.min_instances for spec in functions}
    wanted = [spec for spec in functions if counts[spec.name] > 0]
    explicit = [spec for spec in wanted if spec.initial is not None]
    implicit = [spec for spec in wanted if spec.initial is None]
    placed: list[Start] = []
    there: list[Occupant] = []

    def place(spec: FunctionSpec, config: ResourceConfig, rows: Sequence[int] | None) -> None:
        for number in range(counts[spec.name]):
            new = _placed(spec, config, memory_mib[spec.name], rows, there, device)
            there.append(new)
            name = f"{spec.name}-{number}"
            placed.append(Start(name, spec.name, device.view.id, new.row, config, Reason.MINIMUM))

    for spec in explicit:
        assert spec.initial is not None
        place(spec, spec.initial.config, None)
    if implicit:
        taken = {one.row: one.config.sm_pct for one in there}
        shares = _shares(implicit, 100 - sum(taken.values()), whole_units)
        first = max(taken, default=-1) + 1
        for spec, (row, config) in zip(implicit, shares, strict=True):
            place(spec, config, [first + row])
    return Decision(tuple(placed))


def _shares(
    functions: Sequence[FunctionSpec], left_pct: float, whole_units: int | None
) -> list[tuple[int, ResourceConfig]]:
    """A row, counted from 0, and a configuration for each function that names none."""
    units = whole_units or 100
    left = math.floor(left_pct / 100 * units + 1e-6)
    if left < 1:
        names = ", ".join(spec.name for spec in functions)
        raise ConfigError(f"nothing of the device is left for {names}: give them an `initial` configuration")
    each = max(left // len(functions), 1)
    rows = min(left // each, len(functions))
    configs = []
    for place, spec in enumerate(functions):
        sharing = sum(1 for other in range(len(functions)) if other % rows == place % rows)
        quota_pct = math.floor(100 / sharing / spec.min_instances * 100) / 100
        # More in a batch makes a GPU faster, and a core only later.
        batch = 1 if whole_units else spec.max_batch
        configs.append((place % rows, ResourceConfig(100 * each / units, quota_pct, batch)))
    return configs


def _placed(
    spec: FunctionSpec,
    config: ResourceConfig,
    memory_mib: float,
    rows: Sequence[int] | None,
    there: Sequence[Occupant],
    device: ServingDevice,
) -> Occupant:
    """An instance in the first of these rows that has room; None: of those that there are, and a new one."""
    if rows is None:
        rows = range(max((one.row for one in there), default=-1) + 2)
    why = device.why_not(config.sm_pct)
    if why is None:
        for row in rows:
            new = Occupant(row, config, memory_mib)
            why = why_no_room(device.view, there, new, spec.max_batch)
            if why is None:
                return new
    raise ConfigError(f"function {spec.name}: its first instances do not fit: {why}")
