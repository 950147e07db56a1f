"""Places in the order of arrival, and which limits are in force."""

import pytest

from airflow_ephemeral_ec2.model.arrivals import (
    ROLLBACK_SECONDS,
    limits_in_force,
    merge_arrivals,
    name_pool,
    rename_pool,
)
from airflow_ephemeral_ec2.model.queue import QueueState
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry


def arrive(*versions, state=None):
    """:param versions: (version, vCPU limit, when)."""
    entries, state = [], state or QueueState()
    for number, (version, vcpus, at) in enumerate(versions):
        limits = Limits(vcpus=vcpus)
        entries.append(
            make_entry(str(number), table_version=version, limits=limits, requested_at=float(at))
        )
        state = merge_arrivals(state, entries)
    return state.tables["payers.yaml"]


def test_arrival_order_survives_and_the_gone_are_forgotten():
    first = merge_arrivals(QueueState(), [make_entry("a"), make_entry("b", requested_at=2)])

    second = merge_arrivals(
        first, [make_entry("b", requested_at=2), make_entry("c", requested_at=0)]
    )

    assert {name: s.sequence for name, s in second.entries.items()} == {"b-a1": 2, "c-a1": 3}


def test_nothing_new_changes_nothing():
    state = merge_arrivals(QueueState(), [make_entry("a")])

    assert merge_arrivals(state, [make_entry("a")]) is state


def test_an_entry_that_cannot_be_read_is_not_forgotten():
    state = merge_arrivals(QueueState(), [make_entry("a"), make_entry("b")])

    merged = merge_arrivals(state, [make_entry("a")], frozenset({"a-a1", "b-a1"}))

    assert set(merged.entries) == {"a-a1", "b-a1"}


def test_where_an_entry_that_cannot_be_read_is_stays_known_as_long_as_it_is_open():
    here, there = make_entry("a"), make_entry("b", region="eu-west-1")
    state = merge_arrivals(QueueState(), [here, there])
    places = (("aws_default", "eu-west-1"), ("aws_default", "us-east-1"))
    assert state.places == places

    unread = merge_arrivals(state, [here, make_entry("c")], frozenset({"a-a1", "b-a1", "c-a1"}))
    assert unread.places == places

    over = merge_arrivals(unread, [here], frozenset({"a-a1"}))
    assert over.places == (("aws_default", "us-east-1"),)


def test_the_newest_version_is_in_force():
    table = arrive(("v1", 8, 1), ("v2", 96, 2))

    assert (table.version, table.limits.vcpus, table.flapped_at) == ("v2", 96, None)


def test_an_older_version_that_comes_again_flaps_and_changes_nothing():
    table = arrive(("v1", 8, 1), ("v2", 96, 2), ("v1", 8, 3))

    assert (table.version, table.limits.vcpus) == ("v2", 96)
    assert (table.flapped_at, table.flapped_with) == (3.0, "v1")


def test_a_newer_version_is_not_said_to_flap():
    table = arrive(("v1", 8, 1), ("v2", 96, 2), ("v1", 8, 3), ("v3", 64, 4))

    assert (table.version, table.flapped_at) == ("v3", None)


def test_a_version_that_was_put_back_is_in_force_after_a_while():
    later = 2 + ROLLBACK_SECONDS + 1

    table = arrive(("v1", 8, 1), ("v2", 96, 2), ("v1", 8, later))

    assert (table.version, table.limits.vcpus) == ("v1", 8)


def test_a_version_that_is_still_seen_is_not_put_back():
    now = 2 + ROLLBACK_SECONDS

    table = arrive(("v1", 8, 1), ("v2", 96, 2), ("v2", 96, now), ("v1", 8, now + 5))

    assert table.version == "v2"


def test_of_several_tables_the_smaller_number_holds():
    entries = [
        make_entry("a", table="a", limits=Limits(vcpus=96, payers={"acme": 8}, fill_gaps=False)),
        make_entry("b", table="b", limits=Limits(vcpus=64, spot=4, payers={"acme": 16, "pea": 2})),
    ]
    state = merge_arrivals(QueueState(), entries)

    assert limits_in_force(state, entries) == {
        "us-east-1/1234": Limits(
            vcpus=64, spot=4, payers={"acme": 8, "pea": 2}, fill_gaps=False
        )
    }  # fmt: skip


def test_tables_of_other_pools_limit_nothing_here():
    here, there = make_entry("a"), make_entry("b", region="eu-west-1", table="b")
    there = there.model_copy(update={"limits": Limits(vcpus=1)})
    state = merge_arrivals(QueueState(), [here, there])

    assert limits_in_force(state, [here, there])["us-east-1/1234"] == Limits()


@pytest.mark.parametrize(
    ("account", "accounts", "pool"),
    [
        ("1234", {}, "us-east-1/1234"),
        ("", {"aws_default": "1234"}, "us-east-1/1234"),
        ("", {}, "us-east-1/aws_default"),
    ],
)
def test_a_pool_is_an_account_and_a_region(account, accounts, pool):
    assert name_pool(make_entry("a", account=account), accounts) == pool


def test_a_pool_is_renamed_when_its_account_becomes_known():
    assert rename_pool("us-east-1/aws_default", {"aws_default": "1234"}) == "us-east-1/1234"
    assert rename_pool("us-east-1/1234", {"aws_default": "1234"}) == "us-east-1/1234"
    assert rename_pool("", {"": "1"}) == ""
