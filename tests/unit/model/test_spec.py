"""What the model itself refuses, whoever builds a spec."""

import pytest
from pydantic import ValidationError

from airflow_ephemeral_ec2.model import plan
from airflow_ephemeral_ec2.model.spec import OWN_TAGS, JobSpec


def make(**settings):
    given = {
        "payer": "acme",
        "job": "claims",
        "command": ["python3", "claims.py"],
        "instance_types": ["m7i.large"],
        "ami": "ami-0abc",
        "subnets": ["subnet-0a1"],
        "security_groups": ["sg-0c3"],
        "instance_profile": "payer-machine",
        "region": "us-east-1",
    }
    return JobSpec(**given | settings)


def test_a_spec_survives_json():
    spec = make(max_runtime="90m", max_wait="2d", tags={"Team": "data"}, skip_exit_codes=[3])

    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_durations_are_text_in_json():
    assert make(max_runtime="90m").model_dump(mode="json")["max_runtime"] == "1h30m"


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        make().priority = 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prioritty", 1),
        ("priority", True),
        ("array_size", 0),
        ("array_size", 1_001),
        ("max_runtime", "31d"),
        ("payer", "a/b"),
        ("job", "-x"),
        ("command", []),
        ("command", ["a\0b"]),
        ("env", {"A=B": "x"}),
        ("env", {"EPHEMERAL_JOB": "x"}),
        ("secrets", {"A": "hunter2"}),
        ("ami", "al2023"),
        ("instance_types", ["m7i"]),
        ("tags", {"aws:x": "y"}),
        ("tags", {"AWS:x": "y"}),
        ("tags", {"ephemeral-ec2:job": "y"}),
        ("tags", {"Name": "y"}),
        ("tags", {f"t{n}": "y" for n in range(44)}),
        ("skip_exit_codes", [0]),
        ("retry_exit_codes", [99]),
        ("code", "/etc"),
    ],
)
def test_a_wrong_value_is_refused(setting, value):
    with pytest.raises(ValidationError):
        make(**{setting: value})


@pytest.mark.parametrize(
    "name",
    ["u-6tb1.56xlarge", "m7i.metal-24xl", "mac2-m2.metal", "u7i-12tb.224xlarge", "m7i-flex.large"],
)
def test_rare_instance_types_pass(name):
    assert make(instance_types=[name]).instance_types == (name,)


def test_own_tags_are_counted_as_the_plan_makes_them():
    names = [name for name in vars(plan) if name.startswith("TAG_")]

    assert len(names) + len(["Name"]) == OWN_TAGS


def test_the_watchdog_outlives_boot_run_and_grace():
    spec = make(boot_timeout="10m", max_runtime="30m", stop_grace="20s")

    assert spec.max_lifetime_seconds == 600 + 1800 + 20 + 300
