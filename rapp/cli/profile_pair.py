"""`rapp profile NET.onnx --pair NET2.onnx`: how much two networks side by side slow each other down."""

from __future__ import annotations

from pathlib import Path

from profiler.devices.opening import DeviceSettings, open_device
from profiler.measure import StopRule
from profiler.networks import read_networks
from profiler.pair import run_pair
from rapp.cli.progress import stages
from rapp.cli.tables import console, ms, table
from rapp.errors import ConfigError
from rapp.profiles.pairs import PairTable

HALVES = (50.0, 50.0)


def measure_pair(
    networks: tuple[str, ...],
    device: str,
    settings: DeviceSettings,
    sm_pct: tuple[float, ...],
    batches: tuple[int, ...],
    rule: StopRule,
    out: Path,
) -> None:
    """Measure a pair at each batch, the same for both, and add the rows to the table `out`.

    Args:
        networks: two ONNX files; the same file twice is a network beside itself.
        sm_pct: the SM partition of both, %, or one for each.

    Raises:
        ConfigError: not two networks, more than two partitions, or a name of a table that ends otherwise.
        MeasureError: one of the two cannot be run, or not beside the other.
        RappError: the device cannot be had, or the table cannot be read or written.
    """
    if len(networks) != 2:
        raise ConfigError(
            f"--pair is measured beside one network: give one ONNX file, not {len(networks) - 1}"
        )
    if len(sm_pct) > 2:
        raise ConfigError("--sm with --pair is one SM partition for both, or one for each, such as 60,40")
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out}: the name of a pair table ends in .csv or .parquet")
    before = [PairTable.read(out)] if out.exists() else []
    first, second = (read_networks([Path(name)], batches).files[0] for name in networks)
    one, other = sm_pct if len(sm_pct) == 2 else (sm_pct[0], sm_pct[0])
    opened = open_device(device, settings)
    try:
        with stages() as show:
            found = run_pair(
                opened,
                first,
                second,
                (one, other),
                [(batch, batch) for batch in batches],
                rule,
                lambda stage, done, total: show("side by side", done + 1, total, float("nan")),
            )
    finally:
        opened.close()
    PairTable.concat([*before, found]).write(out)
    _print(found)
    console().print(
        f"{out}: {len(found)} rows more, {sum(map(len, before)) + len(found)} in all", soft_wrap=True
    )


def _print(found: PairTable) -> None:
    made = table("network", "beside", "batch", "alone", "together", "slowdown", "converged", left=(0, 1))
    for row in found.rows:
        slowdown = f"{row.slowdown:.2f}"
        if row.slowdown_low is not None and row.slowdown_high is not None:
            slowdown += f" ({row.slowdown_low:.2f}-{row.slowdown_high:.2f})"
        times = ms(row.alone_ms), ms(row.together_ms)
        made.add_row(
            row.network, row.other, f"{row.batch}", *times, slowdown, "yes" if row.converged else "no"
        )
    console().print(made)
    console().print("alone, together: median of a batch, ms; slowdown with the interval of at least 90 %")
