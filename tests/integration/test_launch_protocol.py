"""The launch protocol against an EC2 that refuses, throttles, forgets and loses its answers."""

import re
import secrets
from urllib.parse import parse_qsl

import pytest
from botocore.httpsession import URLLib3Session

from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.queue import UNAVAILABLE_SECONDS
from airflow_ephemeral_ec2.model.watch import QUIET_SECONDS
from tests.integration.counted_jobs import CountingEngine, counting_engine
from tests.integration.engine import AMI

NO_CAPACITY = "InsufficientInstanceCapacity"
SPOT_FIRST = {
    "capacity_type": "spot-then-on-demand",
    "instance_types": ["m7i.large"],
    "subnets": ["subnet-0a1"],
}


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.1, shutting_down=0.1) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    with counting_engine(cloud, make_spec) as engine:
        yield engine


class Wire:
    """Changes what the launch client sends or hears, and forgets it at the end."""

    def __init__(self, client, operation):
        self._events, self._operation, self._known = client.meta.events, operation, []

    def on(self, event, handler):
        name = f"{event}.ec2.{self._operation}"
        self._events.register(name, handler)
        self._known.append((name, handler))

    def spoil(self, change, times=1):
        """Let ``change(bytes) -> bytes`` spoil the next answers."""
        left = [times]

        def handler(response_dict, **_):
            if left[0]:
                left[0] -= 1
                response_dict["body"] = change(response_dict["body"])

        self.on("before-parse", handler)

    def close(self):
        for name, handler in self._known:
            self._events.unregister(name, handler)


@pytest.fixture
def launches(engine):
    wire = Wire(engine.fleet.clients.launch, "RunInstances")
    yield wire
    wire.close()


@pytest.fixture
def sightings(engine):
    wire = Wire(engine.fleet.clients.ec2, "DescribeInstances")
    yield wire
    wire.close()


def assert_ran_once(engine, opened, found):
    assert (found.outcome, engine.runs) == ("succeeded", 1)
    assert list(engine.machines(opened).values()) == ["terminated"]


def test_L2_a_record_without_a_launch_is_launched_once_by_whoever_comes(engine):
    """Whoever wrote the launch record dies before RunInstances; two others come."""
    opened = engine.counted()
    assert engine.launch_calls(opened) == []
    heirs = [engine.controller(), engine.controller()]

    for heir in heirs:
        heir.tick()
    found = engine.wait(opened, heirs[0])

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)]


def test_L3_a_launch_that_nobody_wrote_down_is_found_by_its_token(engine):
    """Killed after RunInstances answered, before the instance id is kept."""
    opened = engine.counted("sleep 1")
    machine = engine.fleet.run(engine.request(opened)).instance_id

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert found.machine.instance_id == machine
    assert engine.launch_calls(opened) == [(0, None)] * 2


def test_L4_a_lost_answer_is_asked_for_again_with_the_same_token(engine):
    """EC2 executes RunInstances and the connection breaks before the answer."""
    engine.cloud.add_fault(action="RunInstances", drop=True, after=True)
    opened = engine.counted("sleep 3")

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert [placement for placement, _ in engine.launch_calls(opened)] == [0, 0]


def test_L5_no_capacity_after_a_lost_answer_is_definitive(engine):
    """The connection breaks before EC2 has done anything; then there is no capacity."""
    engine.cloud.add_fault(action="RunInstances", drop=True)
    engine.cloud.add_fault(action="RunInstances", code=NO_CAPACITY, http=500)
    opened = engine.counted(instance_types=["m7i.large"], subnets=["subnet-0a1"])

    found = engine.wait(opened)

    assert (found.outcome, engine.runs) == ("no_capacity", 0)
    assert engine.machines(opened) == {}


@pytest.mark.parametrize("code", ["InternalError", "502"])
def test_L6_L9_an_unclear_answer_never_leads_to_another_placement(engine, code):
    """RunInstances answers 502 twice before it does anything; other placements are free."""
    engine.cloud.add_fault(action="RunInstances", code=code, http=502, count=2)
    opened = engine.counted()

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert [placement for placement, _ in engine.launch_calls(opened)] == [0, 0, 0]


def test_L7_no_capacity_as_500_costs_one_call_and_goes_on(engine):
    """The first placement answers InsufficientInstanceCapacity with status 500."""
    engine.cloud.add_fault(action="RunInstances", code=NO_CAPACITY, http=500)
    opened = engine.counted()

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, NO_CAPACITY), (1, None)]
    assert engine.store.read_refusals(opened.record) == {0: NO_CAPACITY}


def test_L8_no_capacity_anywhere_is_one_call_each(engine):
    """Every placement answers InsufficientInstanceCapacity."""
    engine.cloud.add_fault(action="RunInstances", code=NO_CAPACITY, http=500, count=0)
    opened = engine.counted()

    found = engine.wait(opened)

    assert (found.outcome, found.budget, engine.runs) == ("no_capacity", "infra", 0)
    assert engine.launch_calls(opened) == [(i, NO_CAPACITY) for i in range(4)]
    assert engine.machines(opened) == {}


def test_L14_a_token_that_somebody_used_otherwise_is_no_launch_of_ours(engine):
    """Somebody launches another type with this attempt's client token."""
    opened = engine.counted("sleep 30")
    foreign = engine.fleet.run(engine.request(opened, InstanceType="m6i.large")).instance_id

    found = engine.wait(opened)

    engine.cloud.wait_for_state(foreign, "terminated")
    assert found.outcome == "tampered"
    assert foreign in found.reason
    assert engine.launch_calls(opened)[-1] == (0, "IdempotentParameterMismatch")
    assert list(engine.machines(opened)) == [foreign]


def test_L15_a_machine_that_died_unseen_is_judged_and_not_launched_again(engine):
    """RunInstances answers IdempotentInstanceTerminated: launched and dead."""
    opened = engine.counted("sleep 30")
    machine = engine.fleet.run(engine.request(opened)).instance_id
    engine.cloud.kill(machine, "host")
    engine.cloud.wait_for_state(machine, "terminated")

    found = engine.wait(opened)

    assert engine.launch_calls(opened)[-1] == (0, "IdempotentInstanceTerminated")
    assert found.outcome == "infra_failed"
    assert list(engine.machines(opened)) == [machine]


def test_L17_under_throttling_all_are_launched_and_none_twice(engine):
    """RequestLimitExceeded for some of the launches of eight jobs."""
    engine.cloud.add_fault(
        action="RunInstances", code="RequestLimitExceeded", http=503, count=3, match={}
    )
    jobs, controller = [engine.counted() for _ in range(8)], engine.controller()

    found = [engine.wait(opened, controller) for opened in jobs]

    assert [f.outcome for f in found] == ["succeeded"] * 8
    assert engine.runs == 8
    assert [len(engine.machines(opened)) for opened in jobs] == [1] * 8


def test_L18_a_spot_quota_leads_to_on_demand_and_never_back(engine):
    """MaxSpotInstanceCountExceeded; the row falls back to on-demand."""
    engine.cloud.add_fault(action="RunInstances", code="MaxSpotInstanceCountExceeded", http=400)
    opened = engine.counted(**SPOT_FIRST)

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, "MaxSpotInstanceCountExceeded"), (1, None)]
    assert found.machine.capacity_type == "on-demand"


def test_L18_a_vcpu_quota_is_waited_for_without_a_walk(engine):
    """VcpuLimitExceeded once; it is asked again after a minute."""
    engine.cloud.add_fault(action="RunInstances", code="VcpuLimitExceeded", http=400)
    opened, controller = engine.counted(), engine.controller()
    controller.tick()
    controller.tick()
    assert engine.launch_calls(opened) == [(0, "VcpuLimitExceeded")]
    assert "Service Quotas" in controller.story_of(opened.name)[-1]
    engine.store.clock.ahead += 61

    found = engine.wait(opened, controller)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, "VcpuLimitExceeded"), (0, None)]


@pytest.mark.parametrize(
    ("code", "match", "places"),
    [
        ("Unsupported", {"InstanceType": "m7i"}, [0, 1, 2]),
        ("InsufficientFreeAddressesInSubnet", {"NetworkInterface.1.SubnetId": "0a1"}, [0, 1]),
    ],
)
def test_L19_L20_what_is_not_offered_is_passed_over_and_remembered(engine, code, match, places):
    """A type that the zone does not have; a subnet without free addresses."""
    engine.cloud.add_fault(action="RunInstances", code=code, http=400, match=match, count=0)
    first, second, controller = engine.counted(), engine.counted(), engine.controller()

    found = [engine.wait(opened, controller) for opened in (first, second)]

    assert [f.outcome for f in found] == ["succeeded"] * 2
    assert [placement for placement, _ in engine.launch_calls(first)] == places
    assert [placement for placement, _ in engine.launch_calls(second)] == places[-1:]
    engine.store.clock.ahead += UNAVAILABLE_SECONDS
    third = engine.counted()
    engine.wait(third, controller)
    assert [placement for placement, _ in engine.launch_calls(third)] == places


@pytest.mark.parametrize(
    ("code", "row"),
    [("UnauthorizedOperation", "L21"), ("InvalidAMIID.NotFound", "L22")],
    ids=["L21", "L22"],
)
def test_L21_L22_a_launch_that_cannot_be_is_over_at_once(engine, code, row):
    """RunInstances is denied; the AMI was deregistered since it was looked up."""
    engine.cloud.add_fault(action="RunInstances", code=code, http=403 if row == "L21" else 400)
    opened = engine.counted()

    found = engine.wait(opened)

    assert (found.outcome, found.budget) == ("bad_config", "none")
    assert code in found.reason
    assert opened.record.user_data[:40] not in found.model_dump_json()
    assert engine.launch_calls(opened) == [(0, code)]


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired"], ids=["L26", "L27"])
def test_L26_L27_credentials_that_expired_are_made_anew_for_the_same_request(engine, code):
    """RunInstances says once that the credentials, or the clock, are out of date."""
    engine.cloud.add_fault(action="RunInstances", code=code, http=400)
    events = []
    opened = engine.counted()

    found = engine.wait(opened, engine.renewed(events))

    assert_ran_once(engine, opened, found)
    assert events == ["renewed"]
    assert engine.launch_calls(opened) == [(0, code), (0, None)]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: re.sub(
            rb"<instancesSet>.*</instancesSet>", b"<instancesSet/>", body, flags=16
        ),
        lambda body: re.sub(rb"<instanceId>.*?</instanceId>", b"", body),
        lambda body: body[: len(body) // 2],
        lambda _: b"<html>busy</html",
        lambda _: b"",
    ],
    ids=["0 instances", "no id", "truncated", "not EC2's XML", "empty"],
)
def test_L30_an_answer_without_an_instance_is_asked_for_again(engine, launches, change):
    """RunInstances launches and answers 200 with something else than an instance."""
    launches.spoil(change)
    opened = engine.counted("sleep 3")

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)] * 2


def test_L30_of_two_machines_in_one_answer_one_is_ended(engine, launches):
    """RunInstances launches two machines for one."""
    opened = engine.counted("sleep 3")
    extra = engine.fleet.run(engine.request(opened, ClientToken="x" * 20)).instance_id

    def add_extra(body):
        item = re.search(rb"<instancesSet>\s*(<item>.*</item>)\s*</instancesSet>", body, 16)
        other = re.sub(rb"i-[0-9a-f]{17}", extra.encode(), item.group(1))
        return body.replace(item.group(1), item.group(1) + other)

    launches.spoil(add_extra)
    found = engine.wait(opened)

    engine.cloud.wait_for_state(extra, "terminated")
    assert extra in [
        call["params"].get("InstanceId", call["params"].get("InstanceIds", [""])[0])
        for call in engine.cloud.calls("TerminateInstances")
    ]
    assert engine.runs <= 1
    assert len(engine.machines(opened)) == 2
    assert found.outcome in ("succeeded", "killed")


def test_L31_a_machine_that_is_not_shown_yet_is_neither_gone_nor_launched_again(engine, sightings):
    """DescribeInstances shows nothing for a while after the launch."""
    hidden = [8]

    def hide(body):
        hidden[0] -= 1
        return re.sub(rb"<reservationSet>.*</reservationSet>", b"<reservationSet/>", body, flags=16)

    sightings.spoil(hide, times=8)
    opened = engine.counted()

    found = engine.wait(opened)

    assert hidden == [0]
    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)]


def test_L32_a_machine_without_tags_is_still_ours(engine, sightings):
    """DescribeInstances shows the machine without its tags, all the time."""
    spoilt = []

    def strip(body):
        spoilt.append(body)
        return re.sub(rb"<tagSet>.*?</tagSet>", b"<tagSet/>", body, flags=16)

    sightings.spoil(strip, times=1_000)
    opened = engine.counted()

    found = engine.wait(opened)

    assert any(b"<tagSet>" in body for body in spoilt)
    assert (found.outcome, engine.runs) == ("succeeded", 1)
    assert engine.launch_calls(opened) == [(0, None)]


def test_L35_a_request_that_a_proxy_delivers_twice_is_one_machine(engine, launches):
    """RunInstances arrives twice, byte for byte."""
    delivered = []

    def deliver_before(request, **_):
        if not delivered:
            delivered.append(URLLib3Session().send(request).status_code)

    launches.on("before-send", deliver_before)
    opened = engine.counted("sleep 1")

    found = engine.wait(opened)

    assert delivered == [200]
    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)] * 2


def test_L36_a_region_that_does_not_answer_is_asked_until_max_wait_and_no_other(engine):
    """Every RunInstances of the region breaks."""
    engine.cloud.add_fault(action="RunInstances", drop=True, count=0)
    opened, controller = engine.counted(max_wait="10m"), engine.controller()
    for _ in range(5):
        controller.tick()
        engine.store.clock.ahead += 31
    engine.store.clock.ahead += 600
    controller.tick()
    # One of those requests may have come through: EC2 gets its time to show a machine.
    assert engine.store.read_outcome(opened.jobkey, 1) is None
    engine.store.clock.ahead += QUIET_SECONDS

    found = engine.wait(opened, controller)

    calls = engine.launch_calls(opened)
    assert len(calls) >= 5
    assert {placement for placement, _ in calls} == {0}
    assert (found.outcome, engine.runs) == ("wait_timeout", 0)
    assert engine.store.read_start_lock(opened.record).revoked
    assert len([line for line in controller.story_of(opened.name) if "no answer" in line]) <= 1


@pytest.mark.parametrize(
    "shown", ["--+--", "+-+-+-", "-" * 2 + "+"], ids=["rarely", "in turn", "late"]
)
def test_O11_a_machine_that_ec2_shows_now_and_then_is_not_gone(engine, sightings, shown):
    """DescribeInstances shows the machine, and does not, and does, in one full look after another;
    it is old enough to be gone."""
    go = engine.new_file()
    opened = engine.counted(f"while [ ! -e {go} ]; do sleep 0.1; done", max_runtime="5h")
    controller = engine.launch(opened)
    engine.wait_for_lock(opened)
    engine.store.clock.ahead += 3_700
    is_hidden = []

    def hide(body):
        empty = rb"<reservationSet/>"
        return (
            re.sub(rb"<reservationSet>.*</reservationSet>", empty, body, flags=16)
            if is_hidden
            else body
        )

    sightings.spoil(hide, times=1_000)
    for look in shown:
        is_hidden[:] = ["hidden"] * (look == "-")
        engine.store.clock.ahead += 61
        assert controller.follow([opened.name]) == {}
    is_hidden.clear()
    go.touch()
    found = engine.wait(opened, controller)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)]


@pytest.mark.parametrize("kind", ["expired token", "repeated page"])
def test_O15_a_look_that_breaks_off_is_no_look(engine, sightings, kind):
    """DescribeInstances says that the page token has expired, or gives a page twice."""
    opened, controller = engine.counted("sleep 1", max_runtime="5h"), engine.controller()
    controller.tick()
    engine.wait_for_lock(opened)
    engine.store.clock.ahead += 3_700
    if kind == "expired token":
        engine.cloud.add_fault(
            action="DescribeInstances", code="InvalidNextToken", http=400, count=5
        )
    else:
        twice = rb"<reservationSet>\1\1</reservationSet>"
        sightings.spoil(
            lambda body: re.sub(rb"<reservationSet>(.*)</reservationSet>", twice, body, flags=16),
            times=5,
        )
    for _ in range(5):
        engine.store.clock.ahead += 61
        controller.tick()
    # After so many failures in a row EC2 is left alone for a while.
    engine.store.clock.ahead += 121

    found = engine.wait(opened, controller)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)]


def test_L16_an_attempt_that_was_launched_two_days_ago_is_not_launched_again(engine):
    """EC2 has forgotten the client token; whoever launched is gone, and another takes over."""
    go = engine.new_file()
    opened = engine.counted(f"while [ ! -e {go} ]; do sleep 0.1; done", max_runtime="5d")
    machine = engine.launch(opened).machine_of(opened.name)
    engine.wait_for_lock(opened)
    engine.store.clock.ahead += 48 * 3_600
    heir = engine.controller()
    for _ in range(3):
        heir.tick()
        engine.store.clock.ahead += 61
    assert heir.machine_of(opened.name) == machine
    go.touch()

    found = engine.wait(opened, heir)

    assert_ran_once(engine, opened, found)
    assert engine.launch_calls(opened) == [(0, None)]


def test_L23_the_image_of_the_record_is_launched_wherever_its_parameter_points_now(engine):
    """RunInstances fails; the SSM parameter of the AMI is moved before it is asked again."""
    ssm, first = engine.cloud.client("ssm"), engine.fleet.resolve_image(AMI)
    ssm.put_parameter(Name="/ours/ami", Value=first, Type="String", Overwrite=True)
    engine.cloud.add_fault(action="RunInstances", code="InternalError", http=500)
    opened, controller = engine.counted(ami="ssm:/ours/ami"), engine.controller()
    controller.tick()
    ssm.put_parameter(
        Name="/ours/ami", Value="ami-0fedcba9876543210", Type="String", Overwrite=True
    )

    found = engine.wait(opened, controller)

    assert_ran_once(engine, opened, found)
    images = [call["params"]["ImageId"] for call in engine.launches(opened)]
    assert images == [first, first]


def test_L24_a_row_whose_user_data_is_too_long_is_refused_before_any_call(engine):
    """A command that does not compress to 16,384 bytes."""
    known = [key for key in engine.store.list_keys("demo/jobs/") if key.endswith("launch.json")]
    before = len(engine.cloud.calls("RunInstances"))

    with pytest.raises(ConfigurationError, match="16,384"):
        engine.open(command=["echo", secrets.token_hex(20_000)])

    engine.controller().tick()
    keys = [key for key in engine.store.list_keys("demo/jobs/") if key.endswith("launch.json")]
    assert (keys, engine.store.list_queue().entries) == (known, frozenset())
    assert len(engine.cloud.calls("RunInstances")) == before


@pytest.mark.parametrize("capacity_type", ["spot", "on-demand"])
def test_L33_L37_E7_what_is_sent_leaves_nothing_and_takes_nobodys_reservation(
    engine, launches, capacity_type
):
    """What EC2 receives: no persistent spot request, nobody's reservation, no disk that stays."""
    bodies = []
    launches.on("before-send", lambda request, **_: bodies.append(request.body))
    opened = engine.counted(capacity_type=capacity_type)

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    [sent] = [dict(parse_qsl(body)) for body in bodies]
    assert sent["CapacityReservationSpecification.CapacityReservationPreference"] == "none"
    spot = {name: value for name, value in sent.items() if "SpotInstanceType" in name}
    assert list(spot.values()) == (["one-time"] if capacity_type == "spot" else [])
    disks = {name: value for name, value in sent.items() if "DeleteOnTermination" in name}
    assert disks
    assert set(disks.values()) == {"true"}


def test_E7_a_second_volume_of_the_ami_is_encrypted_and_gone_with_its_machine(engine, cloud):
    """The AMI's second volume is neither encrypted nor deleted with its machine."""
    data = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 4, "DeleteOnTermination": False}}
    image = {"architecture": "x86_64", "devices": [data]}
    cloud.seed(state_bucket="records", images={"ami-0fedcba9876543210": image})
    go = engine.new_file()
    opened = engine.counted(
        f"until [ -e {go} ]; do sleep 0.1; done", ami="ami-0fedcba9876543210", volume_gib=9
    )
    controller = engine.launch(opened)
    ec2 = cloud.client("ec2")

    volumes = ec2.describe_volumes()["Volumes"]
    go.touch()
    found = engine.wait(opened, controller)

    assert_ran_once(engine, opened, found)
    assert {(one["Size"], one["Encrypted"]) for one in volumes} == {(9, True), (4, True)}
    assert ec2.describe_volumes()["Volumes"] == []


def test_E6_a_machine_that_stops_instead_of_ending_is_terminated(engine, launches):
    """Somebody on the way changes the shutdown behaviour of RunInstances to ``stop``."""
    launches.on(
        "provide-client-params",
        lambda params, **_: params | {"InstanceInitiatedShutdownBehavior": "stop"},
    )
    opened = engine.counted()

    found = engine.wait(opened)

    assert_ran_once(engine, opened, found)
    states = engine.cloud.states(found.machine.instance_id)
    assert "stopping" in states
    assert states[-2:] == ["shutting-down", "terminated"]


def test_L13_the_same_task_in_two_environments_shares_no_token(engine, cloud, make_spec):
    """The same DAG, run and task in two environments of one account."""
    mine = engine.counted()
    other = CountingEngine(cloud, make_spec)
    other.store.environment = "other"
    theirs = other.counted()
    other.remove()

    assert {p.client_token for p in mine.record.placements}.isdisjoint(
        p.client_token for p in theirs.record.placements
    )
    engine.store.close_entry(mine.name)
    other.store.close_entry(theirs.name)
