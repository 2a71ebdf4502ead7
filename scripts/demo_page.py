"""The page of the demonstration: what was measured, how well it is predicted, what is recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo_machine import Check, Findings
from demo_sweep import TRAINED, UNSEEN
from markupsafe import Markup

from rapp.cli.tables import ms
from rapp.evaluation import Evaluation
from rapp.profiles.campaigns import MOST_DRIFT_PCT
from rapp.recommend import Choice, Recommendation
from rapp.report import charts
from rapp.report.profiles import profiles_section
from rapp.report.recommendation import recommendation_section
from rapp.report.render import render_source
from rapp.report.scale import VIRIDIS

TEMPLATE = Path(__file__).with_name("demo_page.html.j2")


def demo_html(findings: Findings, v100: tuple[Recommendation, ...]) -> str:
    """A self-contained page.

    Args:
        findings: of this machine.
        v100: what is recommended for networks on a V100, the unseen one first; none: the page says nothing
            of it.
    """
    found, check, table = findings.found, findings.check, findings.table
    return render_source(
        TEMPLATE.read_text("utf-8"),
        viridis=VIRIDIS,
        device=findings.summary.setting["device"],
        unseen=UNSEEN,
        trained=TRAINED,
        n_points=len(table.filter(status="ok", anchor=False)),
        load=findings.load,
        drift=findings.drift_pct,
        drifted=(findings.drift_pct or 0) > MOST_DRIFT_PCT,
        measured=profiles_section(table, [findings.summary]),
        n_calibrating=findings.after.points,
        before=_evaluation(findings.before),
        after=_evaluation(findings.after),
        rows=_rows(findings),
        slo=f"{found.objective.slo_ms:g}",
        rps=f"{found.objective.rps:g}",
        best=_choice(found.best),
        recommendation=recommendation_section(found),
        check=_check(check, found),
        v100=[{"network": one.network, **_choice(one.best)} for one in v100],
        v100_objective=v100[0].objective if v100 else None,
        v100_recommendation=recommendation_section(v100[0]) if v100 else None,
    )


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Of one network: its scores are those of all rows."""
    scores = evaluation.pooled
    return {
        "scatter": Markup(charts.predicted_against_measured(evaluation.rows)),
        "n_rows": scores.n_rows,
        "mape": f"{scores.mape:.1f}",
        "bias": _signed(scores.bias),
        "p95": f"{scores.p95_ape:.1f}",
        "coverage": f"{scores.coverage:.0f}",
        "width": f"{scores.width:.0f}",
    }


def _rows(findings: Findings) -> list[dict[str, Any]]:
    """Every point of the unseen network, with both predictions; a calibrating one has no second."""
    before, after = findings.before.rows, findings.after.rows
    places = {(after.sm_pct[i], after.quota_pct[i], after.batch[i]): i for i in range(len(after))}
    shown = []
    for i in range(len(before)):
        at = before.sm_pct[i], before.quota_pct[i], before.batch[i]
        j = places.get(at)
        shown.append(
            {
                "config": [f"{value:g}" for value in at],
                "measured": ms(before.measured_ms[i]),
                "measured_value": before.measured_ms[i],
                "before": ms(before.mean_ms[i]),
                "before_error": _signed(before.error[i]),
                "after": ms(after.mean_ms[j]) if j is not None else None,
                "after_error": _signed(after.error[j]) if j is not None else None,
                "interval": f"{ms(after.low_ms[j])} to {ms(after.high_ms[j])}" if j is not None else None,
            }
        )
    return shown


def _choice(one: Choice) -> dict[str, Any]:
    return {
        "instances": one.instances,
        "sm": f"{one.config.sm_pct:g}",
        "quota": f"{one.config.quota_pct:g}",
        "batch": one.config.batch,
        "share": f"{one.gpu_share:.2f}",
        "mean": ms(one.mean_ms),
        "low": ms(one.low_ms),
        "high": ms(one.high_ms),
        "request": ms(one.request_ms),
    }


def _check(check: Check, found: Recommendation) -> dict[str, Any]:
    return {
        "measured": ms(check.measured_ms),
        "half_width": ms(check.half_width_ms) if check.half_width_ms is not None else None,
        "verdict": check.verdict(found).replace("-", "−"),
        "missed": check.measured_ms + found.best.fill_ms > found.objective.slo_ms,
    }


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
