"""The plot and the page of a recommendation."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rapp.recommend import Choice, Recommendation, Risk
from rapp.report.axis import Axis, linear, number, padded_log
from rapp.report.render import render
from rapp.report.svg import Plot
from rapp.types import FloatArray


def front_svg(found: Recommendation, *, alone: bool = False) -> str:
    """GPU share against request latency: every configuration, the Pareto front, the objective, the best.

    Args:
        found: what was recommended.
        alone: for a file of its own, with colours and ground.
    """
    options = found.options
    x, y = front_axes(found)
    plot = Plot(x, y, title=f"GPU share against latency of {found.network}", width=560, height=380)
    shown = _shown(found)
    for inside, style in ((shown & ~options.meets, "cloud pale"), (shown & options.meets, "cloud")):
        plot.cloud(options.gpu_share[inside], options.request_ms[inside], style)
    plot.line([x.low, x.high], [found.objective.slo_ms] * 2, "goal")
    plot.text(x.high, found.objective.slo_ms, f"objective {found.objective.slo_ms:g} ms", style="end", dy=-6)
    front = [one for one in found.front if one.request_ms < y.high]
    plot.line(*_steps(front, x.high))
    plot.dots(
        [one.gpu_share for one in front], [one.request_ms for one in front], [_about(one) for one in front]
    )
    best = found.best
    plot.dots([best.gpu_share], [best.request_ms], [_about(best)], radius=7, style="ring")
    if alone:
        plot.text(
            x.low, y.high, f"{found.network}: {found.objective.rps:g} requests/s", style="name", dx=8, dy=14
        )
    return plot.svg(alone=alone)


def front_axes(found: Recommendation) -> tuple[Axis, Axis]:
    """The two axes of `front_svg`, both logarithmic: GPU share and request latency, ms."""
    shown = _shown(found)
    latency = np.append(found.options.request_ms[shown], found.objective.slo_ms)
    return (
        padded_log(found.options.gpu_share[shown], "GPU share, GPUs set aside"),
        padded_log(latency, "request latency, ms", by=0.07),
    )


def _shown(found: Recommendation) -> NDArray[np.bool_]:
    """What takes a hundred times the GPUs or twenty times the time would press the rest into a corner."""
    cheap = found.options.gpu_share < 100 * found.best.gpu_share
    fast = found.options.request_ms < 20 * found.objective.slo_ms
    return np.asarray(cheap & fast, dtype=bool)


def share_svg(found: Recommendation) -> str:
    """GPUs that the load needs over SM partition and quota, at the best batch; grey misses the objective."""
    grid, batch = found.grid, found.best.config.batch
    plane = (slice(None), slice(None), list(grid.batch).index(batch))
    share = found.options.gpu_share.reshape(grid.shape)[plane]
    request = found.options.request_ms.reshape(grid.shape)[plane]
    meets = found.options.meets.reshape(grid.shape)[plane]
    sm_edges, quota_edges = _edges(grid.sm_pct), _edges(grid.quota_pct)
    corners, strength, about = [], [], []
    lowest, highest = (float(f(share[meets])) for f in (np.min, np.max))
    for i, sm in enumerate(grid.sm_pct):
        for j, quota in enumerate(grid.quota_pct):
            corners.append([*_cell(sm_edges, sm)[:1], *_cell(quota_edges, quota)[:1],
                            *_cell(sm_edges, sm)[1:], *_cell(quota_edges, quota)[1:]])  # fmt: skip
            span = np.log(highest / lowest)
            cheap = 1 - np.log(share[i, j] / lowest) / span if span > 0 else 1.0
            strength.append(0.12 + 0.78 * float(np.clip(cheap, 0, 1)) if meets[i, j] else -1.0)
            missed = "" if meets[i, j] else ": misses the objective"
            about.append(
                f"SM {sm:g} %, quota {quota:g} %, batch {batch}: {share[i, j]:.2f} GPUs,"
                f" {request[i, j]:.1f} ms{missed}"
            )
    x = linear(sm_edges[0], sm_edges[-1], "SM partition, %", ticks=_few(grid.sm_pct))
    y = linear(quota_edges[0], quota_edges[-1], "time quota, %", ticks=_few(grid.quota_pct))
    plot = Plot(x, y, title=f"GPU share over SM partition and quota at batch {batch}", width=560, height=380)
    plot.cells(np.array(corners), strength, about)
    best = found.best.config
    plot.dots([best.sm_pct], [best.quota_pct], [_about(found.best)], radius=7, style="ring")
    return plot.svg()


def recommendation_html(found: Recommendation, *, artifact: str, device: str) -> str:
    """A self-contained page: the best, the alternatives, the front, and how the figures come about."""
    return render(
        "recommendation.html.j2",
        network=found.network,
        artifact="/".join(PurePath(artifact).parts[-2:]),
        device=device,
        **_body(found, brief=False),
    )


def recommendation_section(found: Recommendation) -> Markup:
    """The best, the plots and the alternatives of `recommendation_html`, for another page."""
    return Markup(render("recommendation_body.html.j2", **_body(found, brief=True)))


def _body(found: Recommendation, *, brief: bool) -> dict[str, Any]:
    objective = found.objective
    return {
        "brief": brief,
        "slo": number(objective.slo_ms),
        "rps": number(objective.rps),
        "upper": objective.risk == Risk.UPPER,
        "quota_kind": found.quota_kind.value,
        "utilisation": f"{100 * objective.utilisation:g}",
        "best": _row(found.best),
        "choices": [_row(one) for one in found.choices],
        "front": [_row(one) | {"meets": one.request_ms <= objective.slo_ms} for one in found.front],
        "count": f"{len(found.options):,}",
        "meeting": f"{int(found.options.meets.sum()):,}",
        "extrapolated": any(one.extrapolated for one in found.choices),
        "front_plot": Markup(front_svg(found)),
        "share_plot": Markup(share_svg(found)),
    }


def _row(one: Choice) -> dict[str, Any]:
    return {
        "sm": f"{one.config.sm_pct:g}",
        "quota": f"{one.config.quota_pct:g}",
        "batch": one.config.batch,
        "instances": one.instances,
        "gpu_share": f"{one.gpu_share:.2f}",
        "host_cores": f"{one.host_cores:.1f}",
        "request": f"{one.request_ms:,.1f}",
        "fill": f"{one.fill_ms:,.1f}",
        "mean": f"{one.mean_ms:,.1f}",
        "low": f"{one.low_ms:,.1f}",
        "high": f"{one.high_ms:,.1f}",
        "busy": f"{100 * one.utilisation:.0f}",
        "extrapolated": one.extrapolated,
    }


def _about(one: Choice) -> str:
    copies = "1 instance" if one.instances == 1 else f"{one.instances} instances"
    return (
        f"SM {one.config.sm_pct:g} %, quota {one.config.quota_pct:g} %, batch {one.config.batch}, {copies}:"
        f" {one.gpu_share:.2f} GPUs, {one.request_ms:.1f} ms"
    )


def _steps(front: list[Choice], end: float) -> tuple[list[float], list[float]]:
    """The front as steps: between two of its points nothing is faster than the cheaper one."""
    x, y = [front[0].gpu_share], [front[0].request_ms]
    for one in front[1:]:
        x += [one.gpu_share, one.gpu_share]
        y += [y[-1], one.request_ms]
    return [*x, end], [*y, y[-1]]


def _edges(axis: Any) -> FloatArray:
    """The bounds of the cells about the values of an axis, sorted: shape (N + 1,)."""
    values = np.unique(np.asarray(axis, dtype=float))
    if len(values) == 1:
        return np.array([values[0] * 0.9, values[0] * 1.1])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[values[0] - (middle[0] - values[0])], middle, [2 * values[-1] - middle[-1]]])


def _cell(edges: FloatArray, value: float) -> tuple[float, float]:
    place = int(np.searchsorted(edges, value)) - 1
    return float(edges[place]), float(edges[place + 1])


def _few(axis: Any) -> FloatArray:
    """At most ten of the values, for ticks."""
    values = np.unique(np.asarray(axis, dtype=float))
    return values[:: -(-len(values) // 10)] if len(values) <= 10 else values[1 :: -(-len(values) // 10)]
