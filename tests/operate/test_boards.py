"""The dashboards as files: complete, explained, linked, and within Grafana's grid."""

import pytest
import yaml

from conftest import ROOT
from expressions import BOARDS, board, panels

pytestmark = pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
TITLES = {path.stem: board(path)["title"] for path in BOARDS}


def test_every_panel_says_what_to_do_when_it_looks_bad(path):
    for panel in panels(path):
        assert len(panel.get("description", "")) >= 80, f"{panel['title']}: what does it show, and what is to be done?"


def test_every_panel_asks_the_chosen_source_for_the_chosen_servers(path):
    for panel in panels(path):
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            assert 'job=~"$job"' in target["expr"] and 'instance=~"$instance"' in target["expr"], panel["title"]
            assert target["legendFormat"], panel["title"]


def test_every_panel_says_its_unit(path):
    for panel in panels(path):
        options, defaults = panel["options"], panel["fieldConfig"]["defaults"]
        assert options["yAxis"]["unit"] if panel["type"] == "heatmap" else defaults["unit"], panel["title"]


def test_panels_stand_in_the_grid_without_overlap_and_with_ids_of_their_own(path):
    taken, ids = set(), set()
    for panel in board(path)["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        assert panel["id"] not in ids, panel["title"]
        taken |= cells
        ids.add(panel["id"])


def test_it_has_variables_links_to_the_other_board_and_annotations(path):
    whole = board(path)
    assert [variable["name"] for variable in whole["templating"]["list"]] == ["datasource", "job", "instance"]
    others = {f"/d/tandem-{stem}" for stem in TITLES if stem != path.stem}
    assert {link["url"] for link in whole["links"]} == others
    assert all(link["includeVars"] and link["keepTime"] for link in whole["links"])
    assert whole["uid"] == f"tandem-{path.stem}"
    assert any("expr" in annotation for annotation in whole["annotations"]["list"])


def test_grafana_is_provisioned_with_the_folder_that_compose_mounts(path):
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/tandem.yml").read_text())["providers"][0]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert f"./{path.parent.relative_to(ROOT)}:{provider['options']['path']}:ro" in mounts
