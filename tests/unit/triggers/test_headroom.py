"""A triggerer that is too small for what waits says so, once."""

import pytest

from airflow_ephemeral_ec2.triggers import headroom
from airflow_ephemeral_ec2.triggers.headroom import Headroom, find_shortage, read_capacity


@pytest.mark.parametrize(
    ("awaited", "capacity", "files", "text"),
    [
        (1_001, 1_000, 4_096, "1001 tasks wait and one triggerer takes 1000"),
        (10, 1_000, 256, "256 open files are allowed and 1024 may be needed"),
        (9_000, 10_000, 4_096, "4096 open files are allowed and 9256 may be needed"),
    ],
)
def test_what_is_too_small_is_named(awaited, capacity, files, text):
    assert text in find_shortage(awaited, capacity, files)


@pytest.mark.parametrize("files", [1_024, -1])
def test_what_is_large_enough_is_not(files):
    assert find_shortage(300, 1_000, files) is None


def test_a_shortage_is_told_once_and_not_for_each_task(monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "5")
    room = Headroom()

    for awaited in (3, 6, 7, 6, 8):
        room.tell_if_short(awaited)

    told = [r for r in caplog.records if r.name == headroom.__name__ and "6 tasks" in r.message]
    assert len([r for r in caplog.records if "tasks wait" in r.message]) == len(told) == 1
    assert read_capacity() == 5
