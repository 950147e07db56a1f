"""Which user ids instances may have."""

import os

import pytest

from airflow_ephemeral_ec2.local.guest_processes import kill_user
from airflow_ephemeral_ec2.local.user_ids import candidate_ids, lease_user_id

_WHOLE = "         0          0 4294967295\n"


def test_no_candidate_is_a_system_a_human_or_a_dynamic_user():
    ids = list(candidate_ids(_WHOLE))

    assert len(ids) > 1_000
    assert not [one for one in ids if one <= 60_578 or 61_184 <= one <= 65_535]


def test_a_small_user_namespace_still_has_some():
    ids = list(candidate_ids("0 100000 65536\n"))

    assert ids
    assert max(ids) < 65_536


def test_two_leases_never_have_the_same_user():
    first, second = lease_user_id(), lease_user_id()
    try:
        assert first.uid != second.uid
    finally:
        first.release()
        second.release()


def test_a_released_user_is_free_again():
    lease = lease_user_id()
    lease.release()

    again = lease_user_id()
    again.release()

    assert again.uid == lease.uid


@pytest.mark.parametrize("uid", [0, 1, 999])
def test_the_processes_of_root_and_the_system_are_never_killed(uid):
    with pytest.raises(ValueError, match="refusing"):
        kill_user(uid)


def test_this_test_was_not_killed():
    assert os.getpid() > 0
