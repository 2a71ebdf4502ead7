"""The page of an evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np
from markupsafe import Markup

from rapp.evaluation import Evaluation, NetworkResult, Scores
from rapp.report import charts
from rapp.report.render import render

WORST, WORST_EACH = 20, 3
"""How many of the worst rows are listed, and how many of one network: one must not fill the list."""
BAR_PX = 110


def evaluation_html(evaluation: Evaluation) -> str:
    """A self-contained page: headline figures, plots, worst cases, every network."""
    networks = sorted(evaluation.scored, key=lambda pair: -pair[1].mape)
    worst_mape = networks[0][1].mape
    left_out = evaluation.left_out
    return render(
        "evaluation.html.j2",
        artifact=_short(evaluation.artifact) or "the artifact",
        table=evaluation.table,
        setting=" · ".join(
            (evaluation.device, evaluation.runtime, evaluation.precision, *evaluation.quota_kinds)
        ),
        n_rows=f"{len(evaluation.rows):,}",
        points=evaluation.points,
        seed=evaluation.seed,
        tiles=_tiles(evaluation),
        left_out=left_out,
        all_trained=all(one.trained for one in left_out),
        trained_scored=sum(one.trained for one, _ in evaluation.scored),
        by=[
            (name, Markup(charts.error_by(evaluation)[key]))
            for key, name in (("sm_pct", "SM partition"), ("quota_pct", "time quota"), ("batch", "batch"))
        ],
        scatter=Markup(charts.predicted_against_measured(evaluation.rows)),
        scatter_note=_scatter_note(len(evaluation.rows)),
        shares=Markup(charts.error_shares(evaluation)),
        coverage_network=Markup(charts.coverage_by_network(evaluation)),
        coverage_width=Markup(charts.coverage_by_width(evaluation.rows)),
        worst=_worst(evaluation),
        worst_each=WORST_EACH,
        networks=[_network(one, scores, worst_mape) for one, scores in networks],
        replaced=sum(chosen.replaced for one in evaluation.networks for chosen in one.chosen),
        chosen=sum(len(one.chosen) for one in evaluation.networks),
        other_rows=f"{evaluation.other_rows:,}" if evaluation.other_rows else "",
    )


def _scatter_note(count: int) -> str:
    if count > charts.MOST_DOTS:
        return "Darker: more rows."
    return "One dot a row." if count > charts.FEW_DOTS else "One dot a row; bar: its interval of 90 %."


def _tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    content, pooled = evaluation.to_dict(), evaluation.pooled
    low, high = evaluation.mape_interval
    tiles = [
        ("mean error", content["mape_mean"], "%", f"over networks; 95 %: {low:.1f} to {high:.1f}"),
        ("median", content["mape_median"], "%", "over networks"),
        ("95th percentile", content["mape_p95"], "%", "over networks"),
        ("mean over rows", content["mape_rows"], "%", f"median {pooled.median_ape:.1f} %"),
        (
            "coverage",
            content["coverage_90"],
            "%",
            "promised: 90 %",
        ),
        ("interval", pooled.width, "% wide", f"interval score {pooled.interval_score:.1f}"),
    ]
    return [
        {"name": name, "value": f"{value:.1f}", "unit": unit, "note": note}
        for name, value, unit, note in tiles
    ]


def _network(one: NetworkResult, scores: Scores, worst_mape: float) -> dict[str, Any]:
    share = scores.mape / worst_mape if worst_mape else 0.0
    return {
        "network": one.network,
        "trained": one.trained,
        "extrapolated": f"{one.extrapolated:.0f}" if one.extrapolated else "",
        "n_rows": scores.n_rows,
        "n_rows_text": f"{scores.n_rows:,}",
        "bar": f"{BAR_PX * share:.0f}",
        "mape": f"{scores.mape:.1f}",
        "mape_value": scores.mape,
        "median": f"{scores.median_ape:.1f}",
        "median_value": scores.median_ape,
        "p95": f"{scores.p95_ape:.1f}",
        "p95_value": scores.p95_ape,
        "bias": _signed(scores.bias),
        "bias_value": scores.bias,
        "coverage": f"{scores.coverage:.0f}",
        "coverage_value": scores.coverage,
        "low": scores.coverage < 75,
        "width": f"{scores.width:.0f}",
        "width_value": scores.width,
        "score": f"{scores.interval_score:.0f}",
        "score_value": scores.interval_score,
    }


def _worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows, error = evaluation.rows, evaluation.rows.error
    listed: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for index in np.argsort(-np.abs(error), kind="stable"):
        name = str(rows.network[index])
        seen[name] += 1
        if seen[name] > WORST_EACH:
            continue
        times = {key: float(getattr(rows, f"{key}_ms")[index]) for key in ("measured", "mean", "low", "high")}
        listed.append(
            {
                "network": name,
                "sm": f"{rows.sm_pct[index]:g}",
                "quota": f"{rows.quota_pct[index]:g}",
                "batch": f"{rows.batch[index]:g}",
                "extrapolated": bool(rows.extrapolated[index]),
                "error": _signed(float(error[index])),
                "error_value": abs(float(error[index])),
                **{key: f"{value:,.1f}" for key, value in times.items()},
                **{f"{key}_value": value for key, value in times.items()},
            }
        )
        if len(listed) == WORST:
            break
    return listed


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _short(path: str) -> str:
    """The last two parts of a path: a page that is passed on need not tell where it was made."""
    return "/".join(PurePath(path).parts[-2:])
