"""What is refused in the settings of alerts, and what routes inherit.
Counterpart: vedette.alerts.settings and vedette.alerts.routes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.alerts.parts import PAGE_AND_MAIL

from vedette.alerts.routes import build_tree
from vedette.alerts.settings import AlertsSettings, RouteSettings
from vedette.model.clock import HOUR, SECOND
from vedette.model.errors import ConfigError


def test_nothing_set_is_a_working_configuration():
    assert AlertsSettings.model_validate({}) == AlertsSettings()


@pytest.mark.parametrize(
    "written",
    [
        {"rout": {}},
        {"route": {"matchers": ["level"]}},
        {"route": {"matchers": ["level=~("]}},
        {"route": {"group_wait": "soon"}},
        {"route": {"group_interval": "0s"}},
        {"route": {"repeat_interval": "10ms"}},
        {"quiet_period": "0s"},
        {"inhibit": [{"source": [], "target": ["level=low"]}]},
        {"route": {"routes": [{"unknown": 1}]}},
    ],
)
def test_what_cannot_be_meant_is_refused(written: dict[str, object]):
    with pytest.raises(ValidationError):
        AlertsSettings.model_validate(written)


def test_children_inherit_what_they_leave_out_and_only_that():
    written = RouteSettings.model_validate(
        {
            "receiver": "mail",
            "group_by": ["host.id"],
            "repeat_interval": "1h",
            "routes": [
                {"matchers": ["level=high"], "receiver": "pager", "continue": True, "routes": [{"group_wait": "5s"}]}
            ],
        }
    )
    root = build_tree(written, PAGE_AND_MAIL)
    (child,) = root.children
    (grandchild,) = child.children
    assert (child.receiver, child.group_by, child.repeat_interval, child.go_on) == ("pager", ("host.id",), HOUR, True)
    assert (grandchild.receiver, grandchild.group_wait, grandchild.go_on) == ("pager", 5 * SECOND, False)
    assert root.group_wait == 30 * SECOND
    assert [route.id for route in root.walk()] == ["{}", '{}/{level="high"}', '{}/{level="high"}/{}']


def test_the_deepest_match_is_taken_and_the_parent_where_no_child_matches():
    root = build_tree(
        RouteSettings(
            receiver="mail",
            routes=(
                RouteSettings(
                    matchers=("level=high",), routes=(RouteSettings(matchers=("rule.id=a",), receiver="pager"),)
                ),
            ),
        ),
        PAGE_AND_MAIL,
    )
    taken = {
        name: [route.id for route in root.matching(labels)]
        for name, labels in {
            "deep": {"level": "high", "rule.id": "a"},
            "middle": {"level": "high", "rule.id": "b"},
            "root": {"level": "low", "rule.id": "a"},
        }.items()
    }
    assert taken == {
        "deep": ['{}/{level="high"}/{rule.id="a"}'],
        "middle": ['{}/{level="high"}'],
        "root": ["{}"],
    }


def test_two_routes_alike_are_told_apart():
    alike = RouteSettings(matchers=("level=high",), receiver="mail", go_on=True)
    root = build_tree(RouteSettings(receiver="", routes=(alike, alike)), PAGE_AND_MAIL)
    assert len({route.id for route in root.walk()}) == 3


def test_a_receiver_that_does_not_exist_is_named_with_its_place():
    written = RouteSettings(receiver="mail", routes=(RouteSettings(receiver="pagr"),))
    with pytest.raises(ConfigError, match=r"alerts\.route\.routes\[0\].*'pagr'.*hint: receivers: pager, mail"):
        build_tree(written, PAGE_AND_MAIL)


def test_matchers_on_the_root_are_refused():
    with pytest.raises(ConfigError, match="root"):
        build_tree(RouteSettings(matchers=("level=high",)), PAGE_AND_MAIL)
