"""Ending many things at once: each failure stays with the thing that it is about."""

import pytest
from botocore.exceptions import ConnectTimeoutError

from airflow_ephemeral_ec2.hooks.reaper_fleet import BATCH, ReaperFleet
from tests.unit.hooks.scripted import refusal


class Answers:
    """EC2's answers to what ends things: refuses a whole call for one bad id, as EC2 does."""

    def __init__(self):
        self.calls = []
        self.gone = []
        self.bad = {}
        self.protected = set()
        self.is_unprotecting_denied = False

    def terminate_instances(self, InstanceIds, **how):  # noqa: N803 - as boto3 has it
        self.calls.append((InstanceIds, how))
        for one in InstanceIds:
            if one in self.bad:
                raise self.bad[one]
            if one in self.protected:
                raise refusal("OperationNotPermitted")
        self.gone += InstanceIds

    def modify_instance_attribute(self, InstanceId, DisableApiTermination):  # noqa: N803
        if self.is_unprotecting_denied:
            raise refusal("UnauthorizedOperation", 403)
        if DisableApiTermination == {"Value": False}:
            self.protected.discard(InstanceId)

    def delete_volume(self, VolumeId):  # noqa: N803
        self._delete(VolumeId)

    def delete_network_interface(self, NetworkInterfaceId):  # noqa: N803
        self._delete(NetworkInterfaceId)

    def _delete(self, one):
        if one in self.bad:
            raise self.bad[one]
        self.gone.append(one)


@pytest.fixture
def ec2():
    return Answers()


@pytest.fixture
def fleet(ec2):
    return ReaperFleet(ec2, "test", "us-east-1")


def many(count):
    return [f"i-{number:04}" for number in range(count)]


def test_K12_very_many_machines_are_ended_in_batches(fleet, ec2):
    """Ten thousand machines to end at once."""
    assert fleet.end(many(10_000)) == {}

    assert max(len(ids) for ids, _ in ec2.calls) == BATCH <= 100
    assert len(ec2.calls) == 100
    assert sorted(ec2.gone) == many(10_000)


def test_K13_bad_ids_are_found_by_halving_and_the_others_end(fleet, ec2):
    """A batch of 100 has an unknown id and one that may not be ended."""
    ec2.bad = {
        "i-0007": refusal("InvalidInstanceID.NotFound"),
        "i-0063": refusal("UnauthorizedOperation", 403),
    }

    problems = fleet.end(many(100))

    assert list(problems) == ["i-0063"]
    assert "UnauthorizedOperation" in problems["i-0063"]
    assert len(ec2.gone) == 98
    assert len(ec2.calls) < 40


def test_K4_L38_protection_is_taken_off_and_told(fleet, ec2, caplog):
    """Somebody switched termination protection on."""
    ec2.protected = {"i-0001"}

    assert fleet.end(many(3)) == {}

    assert sorted(ec2.gone) == many(3)
    assert "i-0001 was protected against termination" in caplog.text


def test_K4_protection_that_cannot_be_taken_off_is_a_problem_of_that_machine(fleet, ec2):
    """The reaper's role may not call ModifyInstanceAttribute."""
    ec2.protected, ec2.is_unprotecting_denied = {"i-0001"}, True

    problems = fleet.end(many(3))

    assert list(problems) == ["i-0001"]
    assert "UnauthorizedOperation" in problems["i-0001"]
    assert sorted(ec2.gone) == ["i-0000", "i-0002"]


@pytest.mark.parametrize(
    "error",
    [refusal("RequestLimitExceeded", 503), ConnectTimeoutError(endpoint_url="https://ec2")],
    ids=["throttled", "no answer"],
)
def test_K12_a_throttled_batch_is_left_for_the_next_pass_not_halved(fleet, ec2, error):
    """EC2 throttles TerminateInstances, or does not answer."""
    ec2.bad = {"i-0042": error}

    problems = fleet.end(many(100))

    assert len(ec2.calls) == 1
    assert sorted(problems) == many(100)


def test_force_is_asked_for_only_where_it_is_wanted(fleet, ec2):
    fleet.end(["i-0001"])
    fleet.end(["i-0002"], force=True)

    assert [how for _, how in ec2.calls] == [{}, {"Force": True, "SkipOsShutdown": True}]


def test_K15_each_left_over_thing_is_deleted_by_itself(fleet, ec2):
    """One volume is attached again meanwhile, one interface is gone already."""
    ec2.bad = {
        "vol-1": refusal("VolumeInUse"),
        "eni-1": refusal("InvalidNetworkInterfaceID.NotFound"),
    }

    problems = fleet.end(["vol-1", "vol-2", "eni-1", "eni-2"])

    assert list(problems) == ["vol-1"]
    assert ec2.gone == ["vol-2", "eni-2"]


def test_nothing_to_end_asks_nothing(fleet, ec2):
    assert fleet.end([]) == {}
    assert ec2.calls == []
