"""Faults by name, as users write them into faults.yaml."""

import pytest

from airflow_ephemeral_ec2.local.account_limits import AccountLimits, bucket_of
from airflow_ephemeral_ec2.local.fault_kinds import (
    KINDS,
    Limits,
    load_faults,
    parse_rule,
    parse_rules,
)
from airflow_ephemeral_ec2.local.faults import Fault
from airflow_ephemeral_ec2.local.harms import Harm

EXAMPLES = {
    "capacity": {"instance_type": "c7i.*", "zone": "us-east-1a", "count": 0},
    "quota": {"market": "spot"},
    "throttle": {"action": "DescribeInstances", "count": 5},
    "error": {"action": "RunInstances", "after": True},
    "lost-response": {"executed": True},
    "duplicate": {},
    "answer": {"with": "no-instances"},
    "zone-down": {"lasts": 30},
    "s3": {"status": 409, "key": "start-lock", "method": "PUT", "by": "payer-machine"},
    "s3-slow": {"seconds": 3},
    "s3-lost": {"executed": False},
    "sts": {},
    "clock-skew": {"seconds": -3600},
    "expired": {},
}


def test_each_kind_has_an_example_here():
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_becomes_a_rule(kind):
    fault = parse_rule({"kind": kind, **EXAMPLES[kind]})

    assert isinstance(fault, Fault)
    assert (
        fault.code
        or fault.drop
        or fault.delay
        or fault.twice
        or fault.distortion
        or fault.shifts_date
    )


def test_capacity_is_missing_for_a_type_in_a_zone_only():
    fault = parse_rule({"kind": "capacity", "instance_type": "c7i.*", "zone": "us-east-1a"})

    def hits(**place):
        return fault.hits("ec2", "RunInstances", place)

    assert hits(instance_type="c7i.16xlarge", zone="us-east-1a")
    assert not hits(instance_type="c7i.16xlarge", zone="us-east-1b")
    assert not hits(instance_type="xc7i.large", zone="us-east-1a")
    assert not hits(instance_type="c7ix", zone="us-east-1a")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "capcity"}, ["rule 1", "'capcity' is not known", "Did you mean 'capacity'"]),
        ({"kind": "capacity", "zon": "a"}, ["unknown key 'zon'", "Did you mean 'zone'", "allowed"]),
        ({"kind": "answer"}, ["kind answer: with is missing"]),
        ({"kind": "answer", "with": "noise"}, ["distortion 'noise'", "no-instances"]),
        ({"how": "hots"}, ["Did you mean 'host'"]),
        ({"limits": {"vcpu": 1}}, ["limits: a mapping of vcpus, spot_vcpus, is_throttled"]),
        ({"limits": {"vcpus": "many"}}, ["'many' is not a number of vCPUs"]),
        ("capacity", ["expected a mapping, found str"]),
        ({}, ['at least "action"']),
    ],
)
def test_a_wrong_rule_names_file_rule_and_key(tmp_path, rule, words):
    import json  # noqa: PLC0415 - JSON is YAML

    path = tmp_path / "faults.yaml"
    path.write_text(json.dumps([rule]))

    with pytest.raises(ValueError, match="rule 1") as caught:
        load_faults(path)

    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_has_faults_harms_and_limits(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {kind: capacity, instance_type: c7i.*, count: 0}\n"
        "- {how: slow-boot, seconds: 5, match: {instance_type: m7i}}\n"
        "- limits: {vcpus: 8, is_throttled: true}\n"
        "- {action: TerminateInstances, code: InternalError}\n"
    )

    plan = load_faults(path)

    assert [fault.action for fault in plan.faults] == ["RunInstances", "TerminateInstances"]
    assert plan.harms == (Harm("slow-boot", 5.0, match={"instance_type": "m7i"}),)
    assert plan.limits == Limits(vcpus=8, is_throttled=True)


@pytest.mark.parametrize("rules", [{"kind": "sts"}, "x", 3])
def test_a_file_is_a_list_of_rules(rules):
    with pytest.raises(ValueError, match="expected a list of rules"):
        parse_rules(rules, "faults.yaml")


def test_requests_over_ec2s_own_rate_are_refused():
    now = [0.0]
    account = AccountLimits(lambda: now[0])
    account.limits = Limits(is_throttled=True)

    burst = [account.throttle("RunInstances") for _ in range(7)]
    now[0] = 1.0
    after = [account.throttle("RunInstances") for _ in range(3)]

    assert [fault is None for fault in burst] == [True] * 5 + [False] * 2
    assert [fault is None for fault in after] == [True, True, False]
    assert burst[-1].code == "RequestLimitExceeded"
    assert bucket_of("DescribeVolumes") == (100.0, 20.0)


@pytest.mark.parametrize(
    ("is_spot", "in_use", "code"),
    [
        (False, 6, None),
        (False, 7, "VcpuLimitExceeded"),
        (True, 2, None),
        (True, 3, "MaxSpotInstanceCountExceeded"),
    ],
)
def test_vcpus_are_counted_by_market(is_spot, in_use, code):
    account = AccountLimits()
    account.limits = Limits(vcpus=8, spot_vcpus=4)

    fault = account.quota(2, in_use, is_spot=is_spot)

    assert (fault.code if fault else None) == code
