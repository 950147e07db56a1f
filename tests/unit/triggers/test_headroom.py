"""A triggerer that is too small for what waits says so, once."""

import pytest

from airflow_ephemeral_ec2.triggers import headroom
from airflow_ephemeral_ec2.triggers.headroom import Headroom, find_shortages, read_capacity


@pytest.mark.parametrize(
    ("waiting", "capacity", "files", "text"),
    [
        (1_000, 1_000, 4_096, "1000 tasks wait here and a triggerer takes 1000"),
        (10, 1_000, 256, "256 open files are allowed and 1024 may be needed"),
        (9_000, 10_000, 4_096, "4096 open files are allowed and 9256 may be needed"),
    ],
)
def test_what_is_too_small_is_named(waiting, capacity, files, text):
    (sentence,) = find_shortages(waiting, capacity, files).values()
    assert text in sentence


@pytest.mark.parametrize("files", [1_024, -1])
def test_what_is_large_enough_is_not(files):
    assert find_shortages(300, 1_000, files) == {}


def test_a_shortage_is_told_once_and_not_for_each_task(monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "5")
    room = Headroom()

    for waiting in (3, 6, 7, 6, 8):
        room.tell_if_short(waiting)

    told = [r for r in caplog.records if r.name == headroom.__name__ and "6 tasks" in r.message]
    assert len([r for r in caplog.records if "tasks wait" in r.message]) == len(told) == 1
    assert read_capacity() == 5


def test_both_are_told_when_all_come_at_once(monkeypatch, caplog):
    """A standby takes over what another triggerer has left."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "5000")
    monkeypatch.setattr(headroom.resource, "getrlimit", lambda _: (1_024, 4_096))
    room = Headroom()

    for waiting in (5_000, 5_001):
        room.tell_if_short(waiting)

    told = [r.message for r in caplog.records if r.name == headroom.__name__]
    assert [text.split(":")[0] for text in told] == [
        "5000 tasks wait here and a triggerer takes 5000",
        "1024 open files are allowed and 5256 may be needed for 5000 waiting tasks",
    ]
