"""Tables of what scripts/bench_serving.py measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_serving_servers import SERVERS, SHOWN

from rapp.fileio import atomic_path

BEGIN, END = "<!-- bench_serving: begin -->", "<!-- bench_serving: end -->"
Row = dict[str, Any]
_AHEAD = {
    None: "",
    "nice": "; server and generator at nice -20",
    "rr": "; server and generator under SCHED_RR, which leaves others 5 % of a core",
}


def print_tables(rows: list[Row]) -> None:
    """On the terminal, as in the document."""
    print("\n".join(_lines(rows)))


def write_tables(rows: list[Row], document: Path) -> None:
    """Put the tables between the markers of a document."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{document} lacks the markers {BEGIN} and {END}")
    with atomic_path(document) as part:
        part.write_text(f"{before}{BEGIN}\n" + "\n".join(_lines(rows)) + f"\n{END}{after}")


def _lines(rows: list[Row]) -> Iterator[str]:
    yield _machine(rows)
    peers = [row for row in rows if row["kind"] == "peers"]
    by_kind: dict[tuple[str, int, str], list[Row]] = {}
    for row in peers:
        by_kind.setdefault((row["network"], row["batch"], _AHEAD[row["ahead"]]), []).append(row)
    for (network, batch, how), own in sorted(by_kind.items(), key=lambda item: (item[0][1], item[0][2])):
        yield f"\n**{network}**, batch at most {batch}{how}\n"
        yield from _peers(own)
    yield from _overhead([row for row in rows if row["kind"] == "overhead"])
    for row in rows:
        if row["kind"] == "soak":
            yield from _soak(row)


def _machine(rows: list[Row]) -> str:
    versions = {SHOWN[row["server"]]: row["version"] for row in rows if "server" in row}
    others = [row["other_cores"] for row in rows if "other_cores" in row]
    busy = f"; other programs kept {min(others):.1f} to {max(others):.1f} cores busy" if others else ""
    name = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    shown = ", ".join(f"{server} {version}" for server, version in versions.items())
    return (
        f"Machine: {os.cpu_count()} cores, {name}, Linux {platform.release()}, Python"
        f" {platform.python_version()}{busy}. {shown}."
    )


def _peers(rows: list[Row]) -> Iterator[str]:
    yield (
        "| server | repetitions | saturation, rps | of rapp serve's | p50 / p99 at 70 % of its own, ms"
        " | p50 / p99 at the same rate, ms | CPU, ms a request | errors |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    by_server = {name: [row for row in rows if row["server"] == name] for name in SERVERS}
    ours = by_server["rapp"]
    for name, own in by_server.items():
        if not own:
            continue
        rps = np.array([row["saturation"]["rps"] for row in own])
        # The servers of a repetition follow each other in the file.
        ratios = [
            mine["saturation"]["rps"] / our["saturation"]["rps"] for mine, our in zip(own, ours, strict=False)
        ]
        ratio = "" if name == "rapp" or not ratios else _spread(ratios, 2)
        errors = sum(
            sum(row[part]["errors"].values()) for row in own for part in ("saturation", "own", "same")
        )
        yield (
            f"| {SHOWN[name]} | {len(own)} | {_spread(rps.tolist(), 1)} | {ratio}"
            f" | {_percentiles(own, 'own')} | {_percentiles(own, 'same')}"
            f" | {np.median([row['same']['cpu_ms'] for row in own]):.2f} | {errors} |"
        )
    yield f"\nThe same rate: {_range([row['same']['rate_rps'] for row in rows])} rps."


def _percentiles(rows: list[Row], part: str) -> str:
    """Medians over the repetitions: one in which the machine was busy does not make the figure."""
    p50 = [np.percentile(row[part]["latency_ms"], 50) for row in rows]
    p99 = [np.percentile(row[part]["latency_ms"], 99) for row in rows]
    return f"{np.median(p50):.1f} / {_spread(p99, 0)}"


def _overhead(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "\n**Gateway alone**: Identity of 1 KB at 500 rps\n"
    yield "| repetition | p50, ms | p99, ms | generator late, p99, ms | other programs, cores |"
    yield "|--:|--:|--:|--:|--:|"
    for number, row in enumerate(rows, 1):
        p50, p99 = np.percentile(row["own"]["latency_ms"], [50, 99])
        lag = np.percentile(row["own"]["lag_ms"], 99)
        yield f"| {number} | {p50:.2f} | {p99:.2f} | {lag:.2f} | {row['other_cores']:.2f} |"


def _soak(row: Row) -> Iterator[str]:
    yield f"\n**Soak**, {row['minutes']:g} minutes of {row['network']} at {row['rate_rps']:.1f} rps\n"
    yield (
        "| requests | answered | refused | errors | p50 / p99 / max, ms | changes | moves | memory, MiB"
        " | growth |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    yield (
        f"| {row['requests']:,} | {row['answered']:,} | {row['refused']} | {sum(row['errors'].values())}"
        f" | {row['p50_ms']:.1f} / {row['p99_ms']:.1f} / {row['max_ms']:.0f}"
        f" | {row['changes']} | {row['moves']}"
        f" | {row['memory_first_mib']:.0f} to {row['memory_last_mib']:.0f} | {row['growth_pct']:+.1f} % |"
    )


def _spread(values: list[float], digits: int) -> str:
    """The median, with the least and the largest if there are several."""
    median = f"{np.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.1f}" if low == high else f"{low:.1f} to {high:.1f}"
