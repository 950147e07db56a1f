"""How machines are looked at by id, whatever their number and whatever became of their tags."""

from fnmatch import fnmatch
from types import SimpleNamespace

import pytest

from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.model.plan import TAG_ENVIRONMENT
from airflow_ephemeral_ec2.model.sweep import MAX_FILTER_VALUES


class TaggedEC2:
    """DescribeInstances with filters by tag, id and state."""

    def __init__(self, count):
        self.tags = {f"i-{number}": {TAG_ENVIRONMENT: "prod"} for number in range(count)}
        self.states = dict.fromkeys(self.tags, "running")
        self.launched = dict.fromkeys(self.tags, "2026-03-01T12:00:05.000Z")
        self.filters: list[list[dict]] = []

    def get_paginator(self, operation):
        assert operation == "describe_instances"
        return SimpleNamespace(paginate=self._paginate)

    def _paginate(self, *, Filters, PaginationConfig):  # noqa: N803 - boto3's names
        assert all(len(one["Values"]) <= MAX_FILTER_VALUES for one in Filters)
        # EC2's largest page: each one more is a call.
        assert PaginationConfig == {"PageSize": 1_000}
        self.filters.append(Filters)
        found = [i for i in self.tags if all(self._matches(i, one) for one in Filters)]
        for at in range(0, len(found), 1_000):
            shown = [
                {"InstanceId": i, "State": {"Name": self.states[i]}} for i in found[at:][:1_000]
            ]
            yield {"Reservations": [{"OwnerId": "1", "Instances": shown}]}

    def _matches(self, instance_id, one):
        if one["Name"] == "launch-time":
            return any(fnmatch(self.launched[instance_id], value) for value in one["Values"])
        facts = {
            "instance-id": instance_id,
            "instance-state-name": self.states[instance_id],
            f"tag:{TAG_ENVIRONMENT}": self.tags[instance_id].get(TAG_ENVIRONMENT),
        }
        return facts[one["Name"]] in one["Values"]


@pytest.fixture
def ec2():
    return TaggedEC2(2 * MAX_FILTER_VALUES)


@pytest.fixture
def fleet(ec2):
    return Fleet(SimpleNamespace(ec2=ec2), "prod", "us-east-1")


def see(fleet, ids, *, all_states=True):
    return {one.instance_id for one in fleet.observe(ids, all_states=all_states).machines}


def test_K10_a_machine_that_has_lost_its_tags_is_seen_among_many(fleet, ec2):
    ec2.tags["i-7"] = {}

    assert see(fleet, list(ec2.tags)) == set(ec2.tags)


def test_many_that_the_tag_does_not_show_are_looked_up_in_parts(fleet, ec2):
    ids = list(ec2.tags)
    for one in ids[:250]:
        ec2.tags[one] = {}

    assert see(fleet, [*ids, "i-unknown"]) == set(ids)


def test_nobody_is_looked_up_twice_where_the_tag_shows_all(fleet, ec2):
    see(fleet, list(ec2.tags))

    assert len(ec2.filters) == 1


def test_the_frequent_look_at_many_asks_for_those_that_do_not_run_alone(fleet, ec2):
    ec2.states["i-3"] = "terminated"

    assert see(fleet, list(ec2.tags), all_states=False) == {"i-3"}
    assert len(ec2.filters) == 1


def test_the_frequent_look_at_many_spares_those_launched_long_before_any_of_them(fleet, ec2):
    """They are dead for up to an hour and shown in each look; the full one shows them all the same."""
    ec2.tags["i-old"] = {TAG_ENVIRONMENT: "prod"}
    ec2.launched["i-old"] = "2026-03-01T11:30:00.000Z"
    ec2.states |= {"i-old": "terminated", "i-3": "terminated"}
    noon = 1_772_366_400.0  # 2026-03-01T12:00:00Z

    found = fleet.observe(list(ec2.tags), all_states=False, launched_at=[noon + 5]).machines

    assert {machine.instance_id for machine in found} == {"i-3"}
    assert {one["Name"] for one in ec2.filters[0]} == {
        f"tag:{TAG_ENVIRONMENT}", "instance-state-name", "launch-time",
    }  # fmt: skip
    assert "i-old" in see(fleet, list(ec2.tags))


def test_a_look_at_many_counts_the_dead_of_others(fleet, ec2):
    for number in range(7):
        ec2.tags[f"i-old-{number}"] = {TAG_ENVIRONMENT: "prod"}
        ec2.states[f"i-old-{number}"] = "terminated"
        ec2.launched[f"i-old-{number}"] = "2026-03-01T12:00:05.000Z"
    mine = [one for one in ec2.tags if not one.startswith("i-old")]

    assert fleet.observe(mine, all_states=False).others == 7
    assert fleet.observe(mine, all_states=True).others == 0
    sparing = fleet.observe(mine, all_states=False, ending=())
    assert (sparing.machines, sparing.others) == ([], 0)


def test_a_look_that_is_spared_the_dead_sees_who_ends_and_who_was_ending(fleet, ec2):
    ec2.states |= {
        "i-1": "shutting-down",
        "i-2": "terminated",
        "i-3": "stopped",
        "i-4": "terminated",
    }

    shown = fleet.observe(list(ec2.tags), all_states=False, ending={"i-2", "i-3"})

    assert {one.instance_id: one.state for one in shown.machines} == {
        "i-1": "shutting-down", "i-2": "terminated", "i-3": "stopped",
    }  # fmt: skip
    assert shown.not_running == {"i-1", "i-2", "i-3"}
    assert see(fleet, list(ec2.tags)) == set(ec2.tags)
