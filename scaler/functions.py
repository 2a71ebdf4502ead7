"""functions.yaml: which networks are served, under which objectives.

    version: 1
    functions:
      - name: classify
        network: graphs/resnet50.onnx      # relative to this file; or a name in a profile table
        slo_ms: 60

Every key is described, with its unit and the reason of its default, in its field below; the committed JSON
Schema (`scaler/schemas/functions.json`) follows from them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rapp.types import ResourceConfig
from scaler.errors import FunctionsError

FORMAT_VERSION: Literal[1] = 1
MOST_BYTES = 10_000_000
"""A list of functions by hand is small: a larger file is something else."""

Percent = Annotated[float, Field(gt=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    # Strict, so that `slo_ms: "60"` or `min_instances: yes` is a mistake that is seen, not a number.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class InitialConfig(_Part):
    """Configuration of the first instance, before any load was seen."""

    sm_pct: Percent = Field(description="SM partition, %")
    quota_pct: Percent = Field(description="time quota, %")
    batch: int = Field(1, ge=1, description="requests executed together at most")

    @property
    def config(self) -> ResourceConfig:
        """The same as a `ResourceConfig`."""
        return ResourceConfig(self.sm_pct, self.quota_pct, self.batch)


class FunctionSpec(_Part):
    """One function: a network served under an objective. Exactly one of `slo_ms` and `slo_multiplier`."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="name, once in the file: letters, digits, `.`, `_`, `-`, 63 at most",
    )
    network: str = Field(
        min_length=1,
        description="an ONNX file (*.onnx), relative to this file; or a name in a profile table",
    )
    slo_ms: Positive | None = Field(
        None, description="objective for queueing, batching and execution together, ms"
    )
    slo_multiplier: Annotated[float, Field(ge=1)] | None = Field(
        None,
        description="the objective as a multiple of the mean latency at SM 100 %, quota 100 %, batch 1",
    )
    slo_quantile: float = Field(
        0.99,
        ge=0.5,
        lt=1,
        description="share of the requests that have to meet the objective, 0.5 to below 1; default p99, as"
        " objectives of online inference are mostly stated",
    )
    max_batch: int = Field(
        8,
        ge=1,
        description="largest batch that may be chosen, requests; default 8, the largest in the public"
        " profiles, beyond which a latency would be extrapolated",
    )
    max_batch_delay_ms: NotNegative = Field(
        0.0,
        description="longest time that a request may wait for its batch to fill while an instance is free,"
        " ms; default 0: an instance that is free takes what waits (Triton's default too), so that batches"
        " form under load and cost nothing without it",
    )
    queue_limit: int = Field(
        1000,
        ge=1,
        description="requests that may wait; one more is refused. Default 1000: ten seconds at 100 rps,"
        " longer than any objective of online inference, so that what is refused had been late anyway",
    )
    min_instances: int = Field(
        1,
        ge=0,
        description="instances to keep without load; default 1, since a cold start misses every objective."
        " 0 allows scaling to zero",
    )
    idle_to_zero_s: Positive | None = Field(
        None,
        description="seconds without a request after which the last instance stops; for min_instances 0"
        " alone, default there 60, the stable window after which Knative scales to zero",
    )
    cold_start_s: Positive = Field(
        5.0,
        description="seconds from the order to start an instance until it serves; measure it. Default 5:"
        " pods of HAS-GPU took 3 to 18 s",
    )
    memory_mib: Positive | None = Field(
        None,
        description="device memory of one instance, MiB; default: what the latency source measured at"
        " max_batch, else 3529, what HAS-GPU gave every pod (3.7e9 bytes)",
    )
    host_cores: Positive | None = Field(
        None,
        description="host cores that one instance is counted with; default: the share of a core that"
        " launching keeps busy, host time a batch over time between batches",
    )
    initial: InitialConfig | None = Field(
        None, description="configuration of the first instance; default: the policy chooses"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.slo_ms is None) == (self.slo_multiplier is None):
            both = "both are given" if self.slo_ms is not None else "neither is given"
            raise ValueError(f"exactly one of slo_ms and slo_multiplier is needed, {both}")
        if self.slo_ms is not None and self.max_batch_delay_ms >= self.slo_ms:
            raise ValueError(
                f"max_batch_delay_ms {self.max_batch_delay_ms:g} leaves nothing of slo_ms {self.slo_ms:g}"
            )
        if self.idle_to_zero_s is not None and self.min_instances > 0:
            raise ValueError("idle_to_zero_s needs min_instances: 0, or the last instance never stops")
        if self.initial is not None and self.initial.batch > self.max_batch:
            raise ValueError(f"initial.batch {self.initial.batch} is above max_batch {self.max_batch}")
        return self

    @property
    def network_file(self) -> Path | None:
        """The ONNX file; None if `network` is a name in a profile table."""
        return Path(self.network) if self.network.lower().endswith(".onnx") else None

    @property
    def network_name(self) -> str:
        """Name of the network: that given, or that of its file without the suffix."""
        file = self.network_file
        return self.network if file is None else file.stem

    @property
    def zero_after_s(self) -> float | None:
        """Seconds without a request after which the function has no instance; None: it keeps the minimum."""
        if self.min_instances > 0:
            return None
        return IDLE_TO_ZERO_S if self.idle_to_zero_s is None else self.idle_to_zero_s

    def objective_ms(self, base_ms: float) -> float:
        """The objective, ms; `base_ms` is the mean latency that `slo_multiplier` counts from."""
        return self.slo_ms if self.slo_multiplier is None else self.slo_multiplier * base_ms  # type: ignore[return-value]


IDLE_TO_ZERO_S = 60.0
"""Knative's stable window (config-autoscaler), after which a revision without requests goes to zero."""


class FunctionsFile(_Part):
    """The content of functions.yaml."""

    version: Literal[1] = Field(description="format version")
    functions: Annotated[tuple[FunctionSpec, ...], Field(min_length=1, strict=False)] = Field(
        description="the functions, each name once"
    )


def read_functions(path: str | Path) -> tuple[FunctionSpec, ...]:
    """The functions of a functions.yaml, in its order; `network` of a file becomes a path from here.

    Raises:
        FunctionsError: unreadable, no YAML, a key or value that is not valid, a name twice, or a network file
            that is not there; one line that names file, function and key.
    """
    from scaler.yaml_file import read_yaml

    file = Path(path)
    content = read_yaml(file, MOST_BYTES)
    try:
        listed = FunctionsFile.model_validate(content).functions
    except ValidationError as error:
        where, reason = _first(error, content)
        raise FunctionsError(file, reason, where=where) from error
    names = [function.name for function in listed]
    for name in names:
        if names.count(name) > 1:
            raise FunctionsError(file, "two functions have this name", where=f"function {name}")
    return tuple(_from_here(file, function) for function in listed)


def functions_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of functions.yaml, as committed in `scaler/schemas/functions.json`."""
    schema = FunctionsFile.model_json_schema()
    schema["$defs"]["FunctionSpec"]["oneOf"] = [
        {"required": [key], "properties": {key: {"type": "number"}}} for key in ("slo_ms", "slo_multiplier")
    ]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | schema | {"title": f"functions.yaml, format version {FORMAT_VERSION}"}


def _from_here(file: Path, function: FunctionSpec) -> FunctionSpec:
    if function.network_file is None:
        return function
    network = file.parent / function.network_file
    if not network.is_file():
        raise FunctionsError(file, f"no such file: {network}", where=f"function {function.name}: network")
    return function.model_copy(update={"network": str(network)})


def _first(error: ValidationError, content: Any) -> tuple[str | None, str]:
    """Where the first mistake is, and what it is; an unknown key before others, since it explains them."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = [str(part) for part in first["loc"] if part != "functions"]
    if first["loc"][:1] == ("functions",) and len(first["loc"]) > 1:
        place[0] = _function_name(content, first["loc"][1])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return ": ".join(place[:-1]) or None, f"unknown key {key!r}{_near(key, _keys(first['loc']))}"
    if first["type"] == "model_type":
        return ": ".join(place) or None, "is no mapping of keys to values"
    if first["type"] == "tuple_type":
        return "functions", "is no list of functions"
    if first["type"] == "missing":
        return ": ".join(place) or None, "is missing"
    reason = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = first["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) else ""
    return ": ".join(place) or None, reason + shown


def _function_name(content: Any, index: Any) -> str:
    try:
        return f"function {content['functions'][index]['name']}"
    except (KeyError, TypeError, IndexError):
        return f"function number {index + 1}" if isinstance(index, int) else "functions"


def _keys(loc: tuple[int | str, ...]) -> Iterable[str]:
    if "initial" in loc:
        return InitialConfig.model_fields
    return FunctionSpec.model_fields if "functions" in loc else FunctionsFile.model_fields


def _near(key: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=2, cutoff=0.5)
    return f" (near: {', '.join(close)})" if close else f"; known are {', '.join(names)}"
