"""What docs/operating.md shows is what the code has."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

from airflow_ephemeral_ec2.model.lifetimes import REAPER_SLACK_SECONDS, SCHEDULE_SLACK_SECONDS
from airflow_ephemeral_ec2.model.reap import PATIENCE_SECONDS, Suspicion
from airflow_ephemeral_ec2.model.retention import (
    LOG_DAYS,
    RECORD_DAYS,
    find_retention_problems,
    recommended_rules,
)
from airflow_ephemeral_ec2.model.watch import DEADLINE_SLACK_SECONDS
from airflow_ephemeral_ec2.notifications.alerts import Alerts, payload_of
from airflow_ephemeral_ec2.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_setting_has_a_row():
    shown = set(re.findall(r"^\| `(\w+)` \|", section("Settings"), re.MULTILINE))

    assert shown == set(Settings.__dataclass_fields__) - {"poll_seconds"} | {"poll_interval"}


def test_the_lifecycle_rules_are_those_that_the_command_writes():
    [text] = re.findall(r"```json\n(.*?)```", section("Retention"), re.DOTALL)

    rules = json.loads(text)["Rules"]

    assert rules == recommended_rules("ENV")
    assert find_retention_problems(rules, "ENV") == []


def test_the_days_are_those_that_a_pass_checks():
    rows = re.findall(r"^\| (`.*?) \| .*? \| (.*?) \|$", section("Retention"), re.MULTILINE)
    kept = {name: text for names, text in rows for name in re.findall(r"`([^`]+)`", names)}

    for name, text in kept.items():
        days = re.match(r"(\d+) days", text)
        rule = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": f"ENV/{name}"}}
        for given in (1, LOG_DAYS - 1, LOG_DAYS, RECORD_DAYS - 1, RECORD_DAYS, 9_999):
            is_allowed = not find_retention_problems(
                [rule | {"Expiration": {"Days": given}}], "ENV"
            )
            is_shown = given >= int(days[1]) if days else text == "may go at any time"
            assert is_allowed == is_shown, (name, given)
    assert len(kept) == 10


def test_the_example_of_alerts_is_python_and_its_names_exist():
    [text] = re.findall(r"```python\n(.*?)```", section("Alerts"), re.DOTALL)

    tree = ast.parse(text)
    imported = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("airflow_ephemeral_ec2")
        for alias in node.names
    ]
    [call] = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and
              getattr(n.func, "id", "") == "Alerts"]  # fmt: skip

    assert len(imported) == 2
    assert all(hasattr(import_module(module), name) for module, name in imported)
    assert {k.arg for k in call.keywords} <= set(Alerts.__dataclass_fields__)


def test_the_fields_of_an_alert_are_all_named():
    class Nobody:
        task_id, map_index = "t", -1

        def xcom_pull(self, **_):
            return None

    for name in payload_of({"ti": Nobody()}, "failed"):
        assert f"`{name}`" in section("Alerts")


def test_the_layers_limits_are_those_of_the_code():
    text = section("Upgrading and orphans")

    assert f"boot_timeout + max_runtime + stop_grace + {DEADLINE_SLACK_SECONDS} |" in text
    assert f"max lifetime + {SCHEDULE_SLACK_SECONDS} |" in text
    assert f"max lifetime + {REAPER_SLACK_SECONDS}," in text


def test_the_reapers_patience_is_that_of_the_code():
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", section("Reaper"), re.MULTILINE)
    words = {
        Suspicion.TOO_OLD: "older than",
        Suspicion.NOT_OPEN: "attempt is over, whose",
        Suspicion.STUCK: "stuck in",
        Suspicion.STOPPED: "a stopped machine",
        Suspicion.LEFT_OVER: "nothing uses",
    }
    assert set(words) == set(PATIENCE_SECONDS)
    seconds = {"second": 1, "minute": 60, "hour": 3_600}
    for reason, word in words.items():
        [shown] = [after for what, after in rows if word in what]
        number, unit = re.match(r"(\d+) (second|minute|hour)", shown).groups()
        assert int(number) * seconds[unit] == PATIENCE_SECONDS[reason], reason
