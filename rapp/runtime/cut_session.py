"""`CutSession`: a network as a chain of ONNX Runtime sessions, between which a gate charges and holds back.

    cut = CutSession.open("resnet50.onnx", feeds, providers=["CUDAExecutionProvider"])
    print(cut.summary)                      # 4 parts of 4.6 to 5.3 ms
    outputs = cut.run(feeds, gate)

Tensors go from part to part where they are, on the device, by IO binding. A weight is in one part only (apart
from what `rapp.runtime.cuts` lets pass); external data are read by ONNX Runtime from their own file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError, DataError, RappError
from rapp.runtime.cuts import CutPlan, CuttableNetwork, Part
from rapp.runtime.gate import QuotaGate
from rapp.runtime.session import cpu_options, import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession, OrtValue, SessionOptions

Provider = str | tuple[str, Mapping[str, Any]]
Feeds = Mapping[str, NDArray[Any]]

# Where the tensors of a provider are; those of all others are in host memory.
_MEMORY = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}

# ONNX Runtime, onnxruntime_session_options_config_keys.h.
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

# Runs that time the parts, after one that warms up. The fastest counts: others were disturbed.
_TIMED_RUNS = 3
# How often measured times may move the cuts; the first time moves them most.
_ROUNDS = 3
# Parts are even enough if the longest takes so many times the mean.
_EVEN = 1.25


class ProviderError(RappError):
    """ONNX Runtime has not the execution provider asked for, or would silently use another."""


@dataclass(frozen=True, slots=True)
class _Link:
    """One part: its session, what it takes and leaves, and what nobody reads after it."""

    session: InferenceSession
    takes: tuple[str, ...]
    leaves: tuple[str, ...]
    drops: tuple[str, ...]


class CutSession:
    """A chain of sessions; threads may run it at the same time.

    It answers as the whole network does, but for rounding: ONNX Runtime fuses nothing across a cut, and may
    lay out the tensors there in another way. Where it would do neither, the answers are equal bit for bit.

    Args:
        network: the network; it is not needed afterwards.
        plan: of this network.
        providers: execution providers, as ONNX Runtime takes them.
        options: makes the options of a session; None: those of `rapp.runtime.cpu_session` on one thread.

    Raises:
        DataError: ONNX Runtime cannot load a part.
        ProviderError: a provider is not there.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        network: CuttableNetwork,
        plan: CutPlan,
        *,
        providers: Sequence[Provider],
        options: Callable[[], SessionOptions] | None = None,
    ) -> None:
        self._runtime = import_onnxruntime()
        self._plan = plan
        self._part_ms: tuple[float, ...] | None = None
        self._inputs, self._outputs = tuple(network.graph.inputs), tuple(network.graph.outputs)
        self._memory, self._device_id = _memory(providers)
        _check_providers(providers, self._runtime.get_available_providers())
        made = options or (lambda: cpu_options(self._runtime, 1))
        self._links = [_link(self._runtime, network, part, providers, made()) for part in plan.parts]

    @classmethod
    def open(
        cls,
        source: str | Path | ModelProto,
        feeds: Feeds,
        *,
        providers: Sequence[Provider],
        part_ms: float = 5.0,
        least_ms: float = 2.0,
        options: Callable[[], SessionOptions] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> CutSession:
        """Cut a network into parts of about `part_ms`, by times measured here and now.

        The whole is timed, then parts are; their times correct what the operators were thought to cost, until
        the parts are even. ONNX Runtime never holds the weights twice.

        Args:
            source: as `CuttableNetwork.load`.
            feeds: inputs to time it with, of the shapes that it will get.
            part_ms: what a part should take, ms.
            least_ms: what each part takes at least, ms. Shorter parts are not worth their wake-ups.
            dims: as `CuttableNetwork.load`.

        Raises:
            ConfigError: not 0 <= least_ms <= part_ms, part_ms 0, or feeds that do not fit the inputs.
            GraphError: as `CuttableNetwork.load`.
            DataError, ProviderError, MissingExtraError: as the constructor.
        """
        if not 0 <= least_ms <= part_ms < math.inf or part_ms == 0:
            raise ConfigError(f"least_ms is {least_ms:g}: it must lie between 0 and part_ms, {part_ms:g}")
        network = CuttableNetwork.load(source, dims=dims)
        made: CutSession | None = None
        plan, most = network.plan(1), len(network.points) + 1
        for round_ in count():
            made = None  # gives back its weights
            made = cls(network, plan, providers=providers, options=options)
            made._part_ms = made._measured_ms(feeds)
            network = network.weighed(plan, made._part_ms)
            late = round_ >= _ROUNDS
            if round_ and min(made._part_ms) >= least_ms and (late or made._is_even()):
                break
            if late:  # with fewer parts it comes to an end
                most = len(plan) - 1
            better = network.plan_by_time(part_ms, least_ms, most)
            if better.ends == plan.ends:
                made._plan = better
                break
            plan = better
        assert made is not None
        return made

    @property
    def plan(self) -> CutPlan:
        """The parts, and why there is only one if so."""
        return self._plan

    @property
    def part_ms(self) -> tuple[float, ...] | None:
        """Time of each part at quota 100 %, ms, when it was opened; None: not measured."""
        return self._part_ms

    @property
    def summary(self) -> str:
        """What was chosen, for people."""
        text = f"{len(self._plan)} parts" if len(self._plan) > 1 else self._plan.outcome.value
        if self._part_ms is None:
            return text
        low, high = min(self._part_ms), max(self._part_ms)
        return f"{text}, {low:.1f} ms" if len(self._part_ms) == 1 else f"{text} of {low:.1f} to {high:.1f} ms"

    def run(
        self,
        feeds: Feeds,
        gate: QuotaGate | None = None,
        device_ms: Callable[[], float] | None = None,
    ) -> list[NDArray[Any]]:
        """Run the parts one after another; the gate waits, charges and holds the result around each.

        Args:
            feeds: all inputs of the network.
            gate: None: nothing is held back.
            device_ms: device time of the part just run, ms; None: its wall time.

        Returns:
            The network's outputs, in its order.

        Raises:
            ConfigError: the feeds are not the network's inputs.
            GateClosedError: the gate was closed before a part could begin.
            Exception: what ONNX Runtime raises.
        """
        values = self._placed(feeds)
        for link in self._links:
            work = partial(self._step, link, values)
            values.update(work() if gate is None else gate.run(work, device_ms))
            for name in link.drops:
                del values[name]
        return [values[name].numpy() for name in self._outputs]

    def _measured_ms(self, feeds: Feeds) -> tuple[float, ...]:
        """Fastest time of each part, ms."""
        times_ms = np.empty((1 + _TIMED_RUNS, len(self._links)))
        for row in times_ms:
            values = self._placed(feeds)
            for place, link in enumerate(self._links):
                begun_ns = time.perf_counter_ns()
                values.update(self._step(link, values))
                row[place] = (time.perf_counter_ns() - begun_ns) / 1e6
        return tuple(times_ms[1:].min(axis=0).tolist())

    def _is_even(self) -> bool:
        times_ms = self._part_ms or ()
        return max(times_ms) * len(times_ms) <= _EVEN * sum(times_ms)

    def _placed(self, feeds: Feeds) -> dict[str, OrtValue]:
        """The inputs where the parts read them."""
        if feeds.keys() != set(self._inputs):
            given, wanted = (", ".join(sorted(names)) or "nothing" for names in (feeds, self._inputs))
            raise ConfigError(f"the feeds are {given}: the network's inputs are {wanted}")
        place = self._runtime.OrtValue.ortvalue_from_numpy
        return {name: place(array, self._memory, self._device_id) for name, array in feeds.items()}

    def _step(self, link: _Link, values: Mapping[str, OrtValue]) -> dict[str, OrtValue]:
        """Run one part until the device has finished, and return what it leaves."""
        binding = link.session.io_binding()
        for name in link.takes:
            binding.bind_ortvalue_input(name, values[name])
        for name in link.leaves:
            binding.bind_output(name, self._memory, self._device_id)
        link.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return dict(zip(link.leaves, binding.get_outputs(), strict=True))


def _link(
    runtime: ModuleType,
    network: CuttableNetwork,
    part: Part,
    providers: Sequence[Provider],
    options: SessionOptions,
) -> _Link:
    graph = network.graph
    if graph.folder is not None:
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(graph.folder.resolve()))
    content = graph.part(part.first, part.end).SerializeToString()
    try:
        session = runtime.InferenceSession(content, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        reason = " ".join(str(error).split())
        where = f"operators {part.first} to {part.end - 1}"
        raise DataError(graph.name, f"ONNX Runtime cannot load it: {reason}", where=where) from error
    _check_providers(providers, session.get_providers())
    takes, leaves = graph.ends(part.first, part.end)
    drops = [name for name in {*takes, *leaves} if graph.is_done(name, part.end)]
    return _Link(session, tuple(takes), tuple(leaves), tuple(drops))


def _check_providers(wanted: Sequence[Provider], there: Sequence[str]) -> None:
    """Raise ProviderError for one that is not there: ONNX Runtime would take the next one instead."""
    names = [one if isinstance(one, str) else one[0] for one in wanted]
    missing = [name for name in names if name not in there]
    if missing or not names:
        text = f"{', '.join(missing)} is not among" if missing else "no provider was named of"
        raise ProviderError(f"{text} ONNX Runtime's {', '.join(there)}: `rapp doctor` says what to do")


def _memory(providers: Sequence[Provider]) -> tuple[str, int]:
    """Kind and number of the memory in which the first provider has its tensors."""
    first = providers[0] if providers else ""
    name, settings = (first, {}) if isinstance(first, str) else first
    memory = _MEMORY.get(name, "cpu")
    return memory, int(settings.get("device_id", 0)) if memory != "cpu" else 0
