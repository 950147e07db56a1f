"""A long wait is told with its reason: behind whom, held by whom, who has the room."""

from types import SimpleNamespace

import pytest
from botocore.awsrequest import AWSResponse

from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import Lease, QueueState, Stage, Unavailable
from airflow_ephemeral_ec2.model.queue_orders import OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.spec import Limits
from airflow_ephemeral_ec2.operators.reap_news import News
from tests.unit.hooks.scripted import Turnable
from tests.unit.model.queue_entries import make_entry

FULL = {"limits": Limits(vcpus=4), "max_runtime": 36_000}
DATE = "2026-03-01"


@pytest.fixture
def tell(store, ago):
    """Return {job: reason} of all who wait longer than a minute; each is told once."""

    def tell(longer_than=60.0):
        told = [payload for _, payload in News(store, "us-east-1").of_long_waits(longer_than)]
        return {payload["job"]: payload["reason"] for payload in told}

    return tell


@pytest.fixture
def ago(store):
    store.clock = Turnable()
    store.clock.at = 1_772_600_000.0  # 2026-03-04
    return lambda seconds: store.clock.now() - seconds


@pytest.fixture
def enqueue(store, ago):
    """Write entries, and the queue state of those that a controller has seen."""

    def enqueue(*entries, unseen=(), lease_seconds=60, **out):
        for entry in (*entries, *unseen):
            store.write_entry(entry)
        state = merge_arrivals(QueueState(), entries)
        lease = Lease(holder="c", expires_at=ago(-lease_seconds))
        known = dict(state.entries)
        for entry in entries:
            known[entry.name] = known[entry.name].model_copy(update=out.get(entry.job, {}))
        state = state.model_copy(update={"entries": known, "lease": lease} | out.get("state", {}))
        assert store.write_state(state, store.read_state()[1])

    return enqueue


def running(entry, ago, **changes):
    return {"stage": Stage.LAUNCHED, "vcpus": entry.vcpus, "launched_at": ago(725),
            "market": "on-demand", "pool": "us-east-1/1234", "instance_id": "i-1"} | changes  # fmt: skip


@pytest.fixture
def door(enqueue, ago):
    """One runs and fills the limit, one is first in line, one stands behind it."""
    run = make_entry("1", "run", vcpus=4, requested_at=ago(900), **FULL)
    first = make_entry(
        "2", "member", payer="zeta", priority=900, requested_at=ago(724), array_index=1,
        array_size=3, **FULL,
    )  # fmt: skip
    last = make_entry("3", "claims", requested_at=ago(130), **FULL)
    enqueue(run, first, last, run=running(run, ago))
    return run, first, last


def test_who_stands_behind_another_is_told_whom_and_why_and_who_has_the_room(tell, door):
    assert tell()["claims"] == (
        "waits for 2m 10s to be launched: #2 in line, behind #1 zeta/member[1] 2026-03-01 "
        "(priority 900): 2 vCPU wanted, 0 of 4 free; "
        "taken by acme/run 2026-03-01 (launched 12m 05s ago)"
    )


def test_the_first_in_line_is_told_who_has_the_room(tell, door):
    assert tell()["member"] == (
        "waits for 12m 04s to be launched: #1 in line: 2 vCPU wanted, 0 of 4 free; "
        "taken by acme/run 2026-03-01 (launched 12m 05s ago)"
    )


def test_who_was_admitted_and_has_lost_its_turn_is_not_said_to_be_in_its_own_way(
    tell, enqueue, ago
):
    """EC2 was not asked for it yet, and somebody more important has come."""
    one = {"limits": Limits(vcpus=2), "max_runtime": 36_000, "vcpus": 2}
    first = make_entry("1", "claims", requested_at=ago(130), **one)
    vip = make_entry("2", "member", priority=900, requested_at=ago(10), **one)
    admitted = {"stage": Stage.ADMITTED, "vcpus": 2, "admitted_at": ago(5)}
    enqueue(first, vip, claims=admitted | {"pool": "us-east-1/1234"})

    assert tell()["claims"].endswith(": 2 vCPU wanted, 0 of 2 free")


def test_who_runs_is_not_told(tell, door):
    assert sorted(tell()) == ["claims", "member"]


def test_only_those_who_count_against_the_limit_are_named(tell, enqueue, ago):
    limits = {"limits": Limits(payers={"acme": 2}), "vcpus": 2}
    other = make_entry("1", "other", payer="zeta", requested_at=ago(900), **limits)
    going = make_entry("2", "going", requested_at=ago(900), **limits)
    waits = make_entry("3", "claims", requested_at=ago(130), **limits)
    enqueue(
        other, going, waits, other=running(other, ago), going=running(going, ago, is_ending=True)
    )

    assert tell()["claims"].endswith(
        ": #1 in line: 2 vCPU wanted, 0 of 2 vCPU of payer acme free; "
        "taken by acme/going 2026-03-01 (shutting down)"
    )


def test_a_machine_of_another_capacity_type_has_not_taken_the_room(tell, enqueue, ago):
    limits = {"limits": Limits(spot=2), "capacity_type": "spot-then-on-demand"}
    mine = [make_entry(str(n), f"run-{n}", requested_at=ago(900), **limits) for n in (1, 2)]
    waits = make_entry("3", "claims", requested_at=ago(130), **limits)
    states = {"run-1": running(mine[0], ago), "run-2": running(mine[1], ago, market="spot")}
    enqueue(*mine, waits, **states)

    assert tell()["claims"].endswith("taken by acme/run-2 2026-03-01 (launched 12m 05s ago)")


def test_many_holders_are_counted_oldest_first(tell, enqueue, ago):
    runs = [
        make_entry(str(n), f"run-{n}", vcpus=1, requested_at=ago(900), **FULL) for n in range(4)
    ]
    waits = make_entry("9", "claims", requested_at=ago(130), **FULL)
    states = {one.job: running(one, ago, launched_at=ago(800 - n)) for n, one in enumerate(runs)}
    states["run-3"] |= {"stage": Stage.ADMITTED, "launched_at": None, "admitted_at": ago(30)}
    enqueue(*runs, waits, **states)

    told = tell()

    assert "taken by acme/run-0 2026-03-01 (launched 13m 20s ago), acme/run-1" in told["claims"]
    assert told["claims"].endswith("acme/run-2 2026-03-01 (launched 13m 18s ago), and 1 more")
    assert told["run-3"].endswith(": admitted 30s ago, being launched")


def test_whom_no_controller_has_seen_yet_is_told_his_place_too(tell, enqueue, ago):
    first = make_entry("1", "member", vcpus=4, requested_at=ago(900), **FULL)
    late = make_entry("2", "claims", requested_at=ago(130), **FULL)
    enqueue(first, unseen=[late], member=running(first, ago))

    assert ": #1 in line: 2 vCPU wanted, 0 of 4 free; taken by acme/member" in tell()["claims"]


def test_who_is_held_is_told_by_whom_and_why(tell, enqueue, store, ago):
    enqueue(make_entry("1", "claims", requested_at=ago(130), **FULL))
    target = OrderTarget(payer="acme", job="claims", business_date=DATE)
    order = QueueOrder(action="hold", target=target, by="ops", reason="bad\nfile", at=5.0)
    assert store.write_order(order)

    assert tell()["claims"].endswith(': held by ops "bad?file", 1970-01-01 00:00Z')


def test_who_waits_for_a_success_is_told_of_what(tell, enqueue, ago):
    enqueue(make_entry("1", "claims", depends_on=("member",), requested_at=ago(130), **FULL))

    assert tell()["claims"].endswith(
        ": waits for a success of acme/member 2026-03-01: nobody has asked for it yet"
    )


def test_who_can_never_fit_is_told_so(tell, enqueue, ago):
    enqueue(make_entry("1", "claims", vcpus=8, requested_at=ago(130), **FULL))

    assert "it can never fit: raise limits.vcpus" in tell()["claims"]


def test_that_nobody_decides_is_the_reason_then(tell, enqueue, ago):
    enqueue(make_entry("1", "claims", requested_at=ago(130), **FULL), lease_seconds=-1)

    assert tell()["claims"].endswith(
        ": fits; launched at the controller's next pass; no controller acts now: nobody is "
        "admitted until a triggerer runs"
    )


def test_what_ec2_refuses_is_the_reason_of_who_is_admitted(tell, enqueue, store, make_record, ago):
    record = store.write_launch(make_record(aws_conn_id="aws_default"))
    entry = plan_entry(record)
    gone = Unavailable(until=ago(-600), code="VcpuLimitExceeded")
    admitted = {"stage": Stage.ADMITTED, "vcpus": 2, "admitted_at": ago(100)}
    enqueue(entry, claims=admitted, state={"unavailable": {record.quota(0): gone}})

    assert tell()["claims"].endswith(
        ": admitted 1m 40s ago, being launched; EC2 has refused "
        f"{record.quota(0).partition('/')[2]} (VcpuLimitExceeded)"
    )


def test_an_entry_that_cannot_be_read_hides_nobody(tell, door, store, s3):
    s3.put_object(Bucket=store.bucket, Key=f"test/queue/{'0' * 40}-a1.json", Body=b"{}")

    assert sorted(tell()) == ["claims", "member"]


def test_who_began_before_the_queue_state_was_lost_does_not_wait(tell, store, s3, ago, make_record):
    began, waits = (
        make_record(jobkey=n * 40, job=job) for n, job in (("a", "runs"), ("b", "waits"))
    )
    for record in (began, waits):
        store.write_entry(plan_entry(store.write_launch(record)))
    lock = b'{"instance_id": "i-1", "nonce": "' + began.nonce.encode() + b'"}'
    s3.put_object(Bucket=store.bucket, Key=store._lock_key(began), Body=lock)
    s3.put_object(Bucket=store.bucket, Key="test/queue-state.json", Body=b"{")

    told = tell()

    assert list(told) == ["waits"]
    assert ": waits until EC2 has been asked what is out" in told["waits"]


def test_whoever_waits_for_less_costs_no_look_at_the_queue(tell, enqueue, store, ago):
    """What decides about places (history, orders, dates) is read only where somebody is told."""
    enqueue(make_entry("1", "claims", depends_on=("member",), requested_at=ago(130), **FULL))
    asked = []
    store.s3.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))

    assert tell(3_600.0) == {}
    few = len(asked)
    assert tell()
    told = len(asked) - few
    assert tell() == {}

    assert few == 3  # state, listing and entry
    assert len(asked) - few - told == few + 1  # and the mark that says: told already
    assert told > few + 1


def test_that_the_reason_cannot_be_read_is_told_with_the_wait(tell, door, store):
    """Somebody has taken the right to read what people order."""
    assert store.write_order(
        QueueOrder(
            action="hold", target=OrderTarget(payer="x", job="y"), by="a", reason="b", at=1.0
        )
    )

    denied = []

    def deny(request, **_):
        if "/orders/" in request.url and "list-type" not in request.url:
            denied.append(request.url)
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            return AWSResponse(request.url, 403, {}, SimpleNamespace(stream=lambda: [body]))
        return None

    store.s3.meta.events.register_first("before-send.s3", deny)
    try:
        told = tell()
    finally:
        store.s3.meta.events.unregister("before-send.s3", deny)

    assert len(told) > 1
    for reason in told.values():
        assert reason.endswith(": the queue cannot be read, see the reaper's log")
    # Not again for each that waits.
    assert len(denied) == 1


def test_a_mark_is_kept_of_each_who_was_told(tell, door, store):
    tell()

    assert not ReaperStore(store, "test").tell_once(door[2].name)
