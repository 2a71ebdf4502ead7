"""`rapp live`: the whole of it on this machine: measure, serve, load, scale, and compare with a replay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.tables import console, ms, note, table

if TYPE_CHECKING:
    from scaler.functions import FunctionSpec
    from scaler.live.live import Compared
    from scaler.live.load import LoadProgress

# The scaler loads inside the function, so that `rapp --help` stays fast.

_RAPP = (sys.executable, "-c", "from rapp.cli.main import main; main()")


def live(
    functions: Annotated[
        Path | None,
        typer.Argument(
            help="functions.yaml with ONNX files; default: light_densenet121 and light_inception_v1, which"
            " come with onnx.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="A trace of these functions; default: load that swings between them, as this machine can"
            " bear it.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[float, typer.Option(help="How many times as many requests.")] = 1.0,
    policy: Annotated[str, typer.Option(help="Policies, with commas.")] = "hybrid,static",
    profiles: Annotated[
        Path | None,
        typer.Option(help="A profile table of this machine; default: measure one.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and of the replay's noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/live"),
) -> None:
    """Serve two networks on this machine's CPU under a real load, scaled by each policy.

    It measures the networks, alone and side by side (`rapp profile`), starts
    the server (`rapp serve`), sends the trace (`rapp load`) and scales, once
    for each policy. Beside what came of it stands what `rapp replay`
    foretells. Takes some 8 minutes; nothing else should run on the machine
    meanwhile.
    """
    from rapp.errors import ConfigError, RappError
    from scaler.functions import read_functions
    from scaler.live.live import LiveSetup, run_live
    from scaler.policies.registry import NAMES
    from scaler.sources.opening import open_source
    from scaler.trace import Trace

    policies = tuple(name.strip() for name in policy.split(","))
    for name in policies:
        if name not in NAMES:
            raise ConfigError(f"no policy {name!r}: there are {', '.join(NAMES)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RappError(f"--out {out}: {error.strerror}") from error
    given = read_functions(functions) if functions is not None else _light()
    for spec in given:
        if spec.network_file is None:
            raise ConfigError(f"function {spec.name}: live serving needs an ONNX file, not a name")
    # Minutes are measured below: what cannot be used is told before.
    asked = None if trace is None else Trace.read(trace)
    if asked is not None:
        asked.arrivals([spec.name for spec in given])
    if profiles is not None:
        source = open_source(profiles)
        for spec in given:
            source.times(spec)
    plan = profiles if profiles is not None else _profiled(given, out)
    pairs = _side_by_side(given, out)
    note("starting the server once for a rehearsal: a light load on one function after the other")
    setup = LiveSetup.measured(given, str(plan), out, pairs)
    for name, one in setup.rehearsed.items():
        note(
            f"{name}: execution times x {one.factor:.2f}, {one.outside_ms:.1f} ms outside of its batch,"
            f" a start takes {one.cold_start_s:.1f} s; objective {setup.slo_ms[name]:.0f} ms"
        )
    used = (setup.swing() if asked is None else asked).scaled(scale)
    found = run_live(
        setup, used, policies, seed=seed,
        on_policy=lambda name: note(f"{name}: {used.duration_s:,.0f} s of load"),
        on_progress=_progress if sys.stderr.isatty() else None,
    )  # fmt: skip
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    _print(found, out)


def _light() -> tuple[FunctionSpec, ...]:
    """Two networks that come with onnx. Six times the latency alone at p95: a busy CPU is no quiet GPU."""
    from importlib.util import find_spec

    from scaler.functions import FunctionSpec

    spec = find_spec("onnx")
    assert spec is not None and spec.origin is not None, "onnx is a dependency"
    folder = Path(spec.origin).parent / "backend" / "test" / "data" / "light"
    common = {
        "slo_multiplier": 6, "slo_quantile": 0.95, "max_batch": 4, "min_instances": 0, "idle_to_zero_s": 10,
    }  # fmt: skip
    return tuple(
        FunctionSpec.model_validate({"name": name, "network": str(folder / f"light_{name}.onnx")} | common)
        for name in ("densenet121", "inception_v1")
    )


def _profiled(functions: tuple[FunctionSpec, ...], out: Path) -> Path:
    """Measure the networks; an interrupted measurement goes on with the same command."""
    from rapp.errors import RappError
    from rapp.runtime.cores import usable_cores

    cores = len(usable_cores())
    counts = sorted({1, max(1, cores // 2), cores})
    made = out / "profiles.parquet"
    note(f"measuring the networks on {cores} cores")
    command = [
        *_RAPP, "profile", *sorted({str(spec.network_file) for spec in functions}),
        "--device", "cpu", "--sm", ",".join(f"{100 * n / cores:.6g}" for n in counts), "--quota", "100",
        "--batch", ",".join(str(b) for b in (1, 2, 4) if b <= max(spec.max_batch for spec in functions)),
        "--max-samples", "100", "--max-seconds", "3", "--stop-width", "2", "--out", str(made),
    ]  # fmt: skip
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise RappError("the networks could not be measured: see above; the same command goes on")
    return made


def _side_by_side(functions: tuple[FunctionSpec, ...], out: Path) -> Path | None:
    """Measure how different networks on halves of the cores slow each other; None: there are no two."""
    from itertools import combinations

    from rapp.errors import RappError
    from rapp.runtime.cores import usable_cores

    files, cores = sorted({str(spec.network_file) for spec in functions}), len(usable_cores())
    if cores < 2 or len(files) < 2:
        return None
    made, half_pct = out / "pairs.csv", 100 * (cores // 2) / cores
    # Rows are added to a table that is there: those of another day are not wanted.
    made.unlink(missing_ok=True)
    for one, other in combinations(files, 2):
        command = [
            *_RAPP, "profile", one, "--pair", other, "--device", "cpu", "--sm", f"{half_pct:.6g}",
            "--batch", "1", "--max-samples", "60", "--max-seconds", "3", "--out", str(made),
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode != 0:
            raise RappError("the networks could not be measured side by side: see above")
    return made


def _progress(now: LoadProgress) -> None:
    line = f"{now.passed_s:,.0f} of {now.duration_s:,.0f} s · {now.sent:,} sent · {now.answered:,} answered"
    sys.stderr.write(f"\r\033[K{line[:79]}")
    sys.stderr.flush()


def _print(found: list[Compared], out: Path) -> None:
    from scaler.live.live import COST_WITHIN_PCT, LEAST_RESIZES, LEAST_STARTS, VIOLATIONS_WITHIN

    shown = console()
    made = table(
        "policy", "", "GPU-s", "violations", "p50 ms", "p99 ms", "resizes", "starts", "drains", left=(0, 1)
    )
    for one in found:
        for what, of in (("live", one.live.outcome), ("foretold", one.foretold)):
            made.add_row(
                one.policy if what == "live" else "", what, f"{of.gpu_seconds:.1f}",
                f"{100 * of.violation_share:.2f} %", ms(of.p50_ms), ms(of.p99_ms),
                f"{of.resizes}", f"{of.starts}", f"{of.drains}",
            )  # fmt: skip
    shown.print(made)
    for one in found:
        good = abs(one.cost_off_pct) <= COST_WITHIN_PCT and abs(one.violations_off) <= VIOLATIONS_WITHIN
        shown.print(
            f"{one.policy}: foretold cost off by {one.cost_off_pct:+.1f} % ({COST_WITHIN_PCT:g} wanted),"
            f" violations by {one.violations_off:+.2f} points ({VIOLATIONS_WITHIN:g} wanted):"
            f" {'near enough' if good else 'not near enough'}"
        )
        shown.print(
            f"  gateway {one.live.gateway_cores:.2f} cores, load generator {one.live.generator_cores:.2f}"
            f" cores; {one.live.report.total.requests:,} requests; {one.live.late_ticks} ticks missed"
        )
    first = found[0]
    if first.live.outcome.resizes < LEAST_RESIZES or first.live.outcome.starts < LEAST_STARTS:
        note(
            f"{first.policy} made {first.live.outcome.resizes} quota changes and"
            f" {first.live.outcome.starts} starts: a trace that forces {LEAST_RESIZES} and {LEAST_STARTS}"
            " tells more"
        )
    for one in found:
        if one.live.report.warning is not None:
            note(f"{one.policy}: {one.live.report.warning}")
    shown.print(f"{out}: live.json, requests-*.csv, functions.yaml, serve.log", soft_wrap=True)
