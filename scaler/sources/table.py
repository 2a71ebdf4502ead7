"""A measured profile table as a source."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapp.errors import ConfigError
from rapp.latency_model import LatencyModel
from rapp.types import QuotaKind
from scaler.errors import NoLatencySourceError, QuotaSemanticsError
from scaler.functions import FunctionSpec
from scaler.sources.base import times_of
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel

if TYPE_CHECKING:
    from rapp.predictor import Predictor
    from rapp.profiles import ProfileTable


class TableSource:
    """The measured latencies of many networks; a network is worked out when it is first asked for.

    Args:
        table: its rows on one device, runtime and precision.
        quota_kind: what the quotas that are planned with limit. `launch_gate` plans and prices by the table's
            own quotas, which do not limit device time: its results belong into a table of their own.
        prior: an artifact of the same device, which continues device time to where launching hides it.

    Raises:
        QuotaSemanticsError: `launch_gate` for a table that holds no such quota.
    """

    def __init__(
        self,
        table: ProfileTable,
        quota_kind: QuotaKind = QuotaKind.GPU_TIME,
        prior: Predictor | None = None,
    ) -> None:
        self._rows = table.filter(status="ok", anchor=False, derived=False)
        self._quota_kind, self._prior = quota_kind, prior
        self._models: dict[str, TabledModel] = {}
        self._found: dict[Path, str | None] = {}
        if quota_kind == QuotaKind.LAUNCH_GATE and quota_kind not in self._rows.column("quota_kind"):
            raise QuotaSemanticsError(
                f"{table.source}: none of its quotas gates launches: leave --quota-semantics launch_gate out"
            )

    @classmethod
    def read(
        cls,
        path: str | Path,
        quota_kind: QuotaKind = QuotaKind.GPU_TIME,
        prior: Predictor | None = None,
    ) -> TableSource:
        """Read a profile table.

        Raises:
            ProfileError: unreadable or not valid.
            QuotaSemanticsError: `launch_gate` for a table that holds no such quota.
        """
        from rapp.profiles import ProfileTable

        return cls(ProfileTable.read(path), quota_kind, prior)

    @property
    def name(self) -> str:
        """The file."""
        return self._rows.source

    def model(self, function: FunctionSpec) -> LatencyModel:
        """The network's rows, smoothed, as a model; marked as extrapolated beyond what was measured.

        Raises:
            NoLatencySourceError: the table has no measured row of the network.
            QuotaSemanticsError: `launch_gate`, and the network's rows do not show one.
            ProfileError: its rows do not show device and host time.
            ConfigError: it has rows on more than one device, runtime or precision.
        """
        return self._tabled(function)

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """The same as tables, with the memory that was measured."""
        model = self._tabled(function)
        made = times_of(model, model.times.source, function, self._quota_kind)
        if model.times.memory_mib is None:
            return made
        memory = [model.times.instance_memory_mib(int(batch)) for batch in made.batch]
        return replace(made, memory_mib=np.array(memory))

    def _tabled(self, function: FunctionSpec) -> TabledModel:
        network = self._network(function)
        if network not in self._models:
            self._models[network] = self._worked_out(network, function)
        return self._models[network]

    def _worked_out(self, network: str, function: FunctionSpec) -> TabledModel:
        from scaler.sources.recover import from_prior, measured_points, recovered, window_ms

        rows = self._rows.filter(network=network)
        rows.points(network)  # refuses rows that do not belong to one curve
        if self._prior is None:
            times = recovered(rows, network)
        else:
            if function.network_file is None:
                raise ConfigError(
                    f"function {function.name}: an artifact beside the table needs the network's ONNX file,"
                    f" not the name {function.network!r}"
                )
            given = self._prior.network(function.network_file)
            times = from_prior(rows, given.calibrated(measured_points(rows, network)))
        if self._quota_kind == QuotaKind.GPU_TIME:
            times = times.without_gate()
        elif times.gate is None:
            raise QuotaSemanticsError(
                f"function {function.name}: {self.name} does not show how a launch gate slows {network}:"
                " profile it under one, at quota 100 % too, or leave --quota-semantics launch_gate out"
            )
        return TabledModel(times, window_ms(rows))

    def _network(self, function: FunctionSpec) -> str:
        """The function's network in the table: that with the graph of its file, else that of its name."""
        known = self._rows.networks()
        if function.network_file is not None:
            file = function.network_file
            if file not in self._found:
                # To read a large file takes seconds, and many functions may share it.
                self._found[file] = self._by_hash(file)
            found = self._found[file]
            if found is not None:
                return found
        if function.network_name not in known:
            close = difflib.get_close_matches(function.network_name, known, n=3)
            near = f" (near: {', '.join(close)})" if close else ""
            raise NoLatencySourceError(
                f"function {function.name}: {self.name} has no measured row of"
                f" {function.network_name!r}{near}: profile it, or give another latency source"
            )
        return function.network_name

    def _by_hash(self, file: Path) -> str | None:
        """The network in the table with this file's graph; None if the table has no hashes.

        Raises:
            NoLatencySourceError: a network of the file's name has another graph.
        """
        from rapp.graph import OperatorGraph

        hashes, names = self._rows.column("graph_hash"), self._rows.column("network")
        if all(one is None for one in hashes):
            return None
        own = OperatorGraph.from_onnx(file).graph_hash
        same = sorted({str(name) for name in names[hashes == own]})
        if same:
            return file.stem if file.stem in same else same[0]
        if any(one is not None for one in hashes[names == file.stem]):
            raise NoLatencySourceError(
                f"{self.name}: its {file.stem} is another network than {file}: the graph hashes differ;"
                f" write network: {file.stem} to take it all the same"
            )
        return None
