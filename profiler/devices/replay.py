"""The replay device: answers from a profile table, with the noise of measuring again.

    replay:v100.parquet                        all its rows, noise of the V100 data
    replay:v100.parquet?run=0.02&process=0     other noise; parameters are those of `ReplayOptions`

A batch takes the table's latency x a factor of its process x a factor of its run. Both are log-normal with
mean 1: for the V100 data the deviation of the logarithm is 2.9 % from run to run and 5.8 % from process to
process. Time is virtual, so that a campaign over real GPU measurements ends in seconds.

The noise hangs on seed, network, SM partition, batch, quota, and on how often this device has opened that
network at that partition: on nothing else, so that the order of a plan does not change a point.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from profiler.device import Block, DeviceInfo, Failure, MeasureError, NetworkFile
from profiler.devices.replay_table import CHOICES, Answer, Place, read_answers
from rapp.errors import ConfigError
from rapp.types import FloatArray

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What can be written behind the table's name, as `?run=0.02&seed=1`.

    Args:
        run: standard deviation of the log of a run's factor: the default is that of the V100 data.
        process: the same of a process's factor, that is, of one session.
        seed: of the noise.
        sleep: real time to let pass, as a share of the latency answered; 0: none.
        where: which rows to take, where the table has several settings: `quota_kind=gpu_time`.
    """

    run: float = 0.029
    process: float = 0.058
    seed: int = 0
    sleep: float = 0.0
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("run", "process", "sleep"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"replay: {name}={value:g} must be 0 or more")

    @classmethod
    def parse(cls, text: str) -> ReplayOptions:
        """From `run=0.02&process=0.05&seed=1`; "" gives the defaults.

        Raises:
            ConfigError: an unknown parameter, or a value out of range.
        """
        kinds: dict[str, Any] = {"run": float, "process": float, "seed": int, "sleep": float}
        given: dict[str, Any] = {}
        where: dict[str, str] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            if name in CHOICES:
                where[name] = value
            elif name in kinds:
                try:
                    given[name] = kinds[name](value)
                except ValueError as error:
                    raise ConfigError(f"replay: {name}={value!r} is no {kinds[name].__name__}") from error
            else:
                raise ConfigError(f"replay: no parameter {name!r}; there are {', '.join([*kinds, *CHOICES])}")
        return cls(**given, where=where)


class ReplayDevice:
    """A `profiler.device.Device` that answers from measured rows, derived ones where none was measured.

    Raises:
        ProfileError: the table has no point, several settings, or one point twice.
    """

    def __init__(self, table: ProfileTable, options: ReplayOptions | None = None) -> None:
        self.options = options or ReplayOptions()
        self._answers = read_answers(table, self.options.where)
        self._sm_pct = {sm_pct for own in self._answers.places.values() for sm_pct, _, _ in own}
        self._visits: Counter[tuple[str, float]] = Counter()
        self._rows_hash = table.rows_hash()

    @classmethod
    def read(cls, path: str | Path, options: ReplayOptions | None = None) -> ReplayDevice:
        """The device of the table in a file."""
        from rapp.profiles import ProfileTable

        return cls(ProfileTable.read(path), options)

    @property
    def info(self) -> DeviceInfo:
        """As the table says; `software` names the table and the noise, so that no row passes for measured."""
        noise = {name: f"{getattr(self.options, name):g}" for name in ("run", "process", "seed")}
        told = ", ".join(f"{name} {value}" for name, value in noise.items())
        return DeviceInfo(
            **self._answers.setting,
            software={"replay_of_rows": self._rows_hash, "replay_noise": told},
            virtual_time=True,
        )

    @property
    def networks(self) -> tuple[NetworkFile, ...]:
        """The networks of the table, by name."""
        return tuple(
            NetworkFile(name, None, graph_hash) for name, graph_hash in sorted(self._answers.hashes.items())
        )

    def why_not(self, sm_pct: float) -> str | None:
        """A partition at which the table has no point is none."""
        return None if sm_pct in self._sm_pct else f"the table has no point at SM {sm_pct:g} %"

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[ReplaySession]:
        """A session; each has its own factor of the process."""
        answers = self._answers.places.get(network.name)
        if answers is None:
            raise MeasureError(Failure.UNSUPPORTED, f"the table has no network {network.name}")
        if reason := self.why_not(sm_pct):
            raise MeasureError(Failure.PARTITION, reason)
        visit = self._visits[network.name, sm_pct]
        self._visits[network.name, sm_pct] += 1
        yield ReplaySession(answers, network.name, sm_pct, visit, self.options)

    def close(self) -> None:
        """Nothing is held."""


class ReplaySession:
    """A `profiler.device.Session` of a network and partition of the table."""

    def __init__(
        self,
        answers: Mapping[Place, Answer],
        network: str,
        sm_pct: float,
        visit: int,
        options: ReplayOptions,
    ) -> None:
        self._answers, self._options = answers, options
        self._network, self._sm_pct, self._visit = network, sm_pct, visit
        self._process = float(self._factors(self._random(), options.process, 1)[0])
        self._batch, self._quota_pct = 0, 100.0
        self._noise = self._random()
        self._seen: list[Answer] = []

    @property
    def sm_count(self) -> int | None:
        """As in the last row that answered."""
        return self._seen[-1].sm_count if self._seen else None

    @property
    def peak_memory_mib(self) -> float | None:
        """Most in the rows that answered."""
        known = [one.peak_memory_mib for one in self._seen if one.peak_memory_mib is not None]
        return max(known, default=None)

    def prepare(self, batch: int) -> None:
        """Nothing runs; a batch of which the table has no quota is unsupported."""
        if not any(place[:2] == (self._sm_pct, batch) for place in self._answers):
            raise MeasureError(
                Failure.UNSUPPORTED, f"the table has no point at SM {self._sm_pct:g} %, batch {batch}"
            )
        self._batch = batch
        self.set_quota(100.0)

    def set_quota(self, quota_pct: float) -> None:
        """Change the quota; the noise of each point is a stream of its own."""
        if not 0 < quota_pct <= 100:
            raise MeasureError(Failure.UNSUPPORTED, f"a quota of {quota_pct:g} %: it must lie in (0, 100]")
        self._quota_pct = quota_pct
        self._noise = self._random(self._batch, quota_pct)

    def run(self, count: int) -> Block:
        """The times of `count` batches."""
        place = (self._sm_pct, self._batch, self._quota_pct)
        answer = self._answers.get(place)
        if answer is None:
            raise MeasureError(Failure.UNSUPPORTED, f"the table has no point at quota {self._quota_pct:g} %")
        self._seen.append(answer)
        factors = self._process * self._factors(self._noise, self._options.run, count)
        if self._options.sleep:
            time.sleep(self._options.sleep * answer.latency_ms * float(factors.sum()) / 1e3)
        return Block(
            wall_ms=answer.latency_ms * factors,
            device_ms=None if answer.device_ms is None else answer.device_ms * factors,
            launch_ms=None if answer.launch_ms is None else answer.launch_ms * factors,
        )

    def outputs(self) -> None:
        """A table has none."""
        return

    def _random(self, *more: float) -> np.random.Generator:
        named = (self._options.seed, self._network, float(self._sm_pct), self._visit, *map(float, more))
        digest = hashlib.sha256(repr(named).encode()).digest()
        return np.random.default_rng(list(digest))

    @staticmethod
    def _factors(random: np.random.Generator, deviation: float, count: int) -> FloatArray:
        """(count,) log-normal factors with mean 1."""
        return np.asarray(np.exp(random.normal(-(deviation**2) / 2, deviation, count)))
