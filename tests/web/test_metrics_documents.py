"""What documents and the dashboard say about metrics is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from web.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "conf" / "grafana" / "nextdeploy.json").read_text())
SUFFIXES = {"c": ("_total",), "g": ("",), "h": ("_bucket", "_sum", "_count")}
SAMPLES = {name + suffix: labels for name, kind, _, labels in FAMILIES for suffix in SUFFIXES[kind]}
OURS = re.compile(r"nextdeploy_\w+")


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [*panels, *(each["expr"] for each in DASHBOARD["annotations"]["list"])]


def test_every_family_is_described_with_its_kind_and_labels():
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = {cells[1].strip(" `"): cells for line in text.splitlines() if len(cells := line.split("|")) == 6}
    kinds = {"c": "counter", "g": "gauge", "h": "histogram"}
    for name, kind, _, labels in FAMILIES:
        cells = rows[name + ("_total" if kind == "c" else "")]
        assert cells[2].strip() == kinds[kind], name
        assert [label for label in cells[3].strip().split(", ") if label] == labels, name
        assert len(cells[4].strip()) > 5, name


def test_the_dashboard_asks_for_what_there_is():
    assert len(expressions()) > 40
    for expression in expressions():
        for name in OURS.findall(expression):
            assert name in SAMPLES, name
    for variable in DASHBOARD["templating"]["list"]:
        for name in OURS.findall(str(variable["query"])):
            assert name in SAMPLES, name


def test_the_dashboard_selects_by_labels_that_there_are():
    for expression in expressions():
        for name, selector in re.findall(r"(nextdeploy_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)(?:=~|=|!=|!~)", selector):
                assert label in SAMPLES[name], (name, label)
        for labels, name in re.findall(r"by \(([^)]*)\) \(\w*\(?(nextdeploy_\w+)", expression):
            assert set(labels.split(", ")) - {"le"} <= set(SAMPLES[name]), expression


def test_counters_are_shown_as_rates_and_parentheses_are_closed():
    for expression in expressions():
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("{") == expression.count("}"), expression
        for name in OURS.findall(expression):
            if name.endswith(("_total", "_bucket")):
                assert re.search(rf"(rate|increase)\({name}[{{\[]", expression), expression


def test_the_dashboard_can_be_imported():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= DASHBOARD.keys()
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_scrape_configuration_is_for_the_address_that_is_the_default():
    from ndactors.core.model import Admin

    config = yaml.safe_load((ROOT / "conf" / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [Admin().listen]
    assert scrape["metrics_path"] == "/metrics"
