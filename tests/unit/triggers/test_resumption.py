import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_ephemeral_ec2.triggers.resumption import SETTLE_SECONDS, seconds_to_settle

EVENT = TriggerEvent({"outcome": "job_failed"})


@pytest.mark.parametrize(
    ("waited", "seconds"), [(0.0, SETTLE_SECONDS), (3.0, SETTLE_SECONDS - 3), (60.0, 0.0)]
)
def test_a_task_is_not_resumed_while_airflow_still_hears_of_its_deferral(waited, seconds):
    assert seconds_to_settle(EVENT, is_awaited=True, waited=waited) == seconds


def test_an_ending_without_a_worker_is_not_held_back():
    assert seconds_to_settle(TaskSuccessEvent(), is_awaited=True, waited=0.0) == 0.0


def test_nothing_is_held_back_in_dag_test():
    assert seconds_to_settle(EVENT, is_awaited=False, waited=0.0) == 0.0
