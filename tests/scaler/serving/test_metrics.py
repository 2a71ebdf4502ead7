"""Every query of the committed dashboard names metrics and labels that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from scaler.serving.testing import RunningServer

DASHBOARD = Path(__file__).parents[3] / "scripts" / "grafana_dashboard.json"
# What Prometheus itself adds.
ADDED = {"job"}


def test_the_dashboard_asks_for_what_there_is(server: RunningServer) -> None:
    _, text, _ = server.ask("GET", "/metrics")
    names, labels = set(), set(ADDED)
    for family in text_string_to_metric_families(text.decode()):
        # A counter of changes has no sample before the first change, but its name.
        names |= {one.name for one in family.samples} or {family.name, f"{family.name}_total"}
        labels |= {label for one in family.samples for label in one.labels}
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(targets) > 20
    for expression in targets:
        asked = set(re.findall(r"\b(?:rapp|process)_\w+", expression))
        assert asked, expression
        assert asked <= names, asked - names
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        used = {label.strip() for group in grouped for label in group.split(",")}
        used |= set(re.findall(r"(\w+)=~", expression))
        assert used <= labels | {"kind", "reason"}, used - labels


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
