"""The console of a machine that is ended, or that failed: kept, and waited for as long as it helps."""

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError, RequestRefusedError
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.watch import CONSOLE_GRACE_SECONDS
from tests.unit.hooks.scripted import heir_of, lock_for, marker_of, name_of, outcome_of

NOTHING = ConsoleOutput("", None)
PANIC = "kernel panic: no root\r\n"
BY_US = "Client.UserInitiatedShutdown"


@pytest.fixture
def overdue(controller, fleet, submit, clock):
    """A machine that has not started its work in time; EC2 has nothing of its console yet."""
    record = submit(boot_timeout="1m")
    controller.tick()
    fleet.set("i-0", "running")
    fleet.console = NOTHING
    clock.at += 61
    return record


@pytest.fixture
def controller(store, fleet, clock):
    return Controller(store, lambda *_: fleet, in_parallel=one_by_one, list_every=10)


def look_again(controller, record):
    """Make a pass that goes by the last listing of the queue."""
    controller.tick({name_of(record)}, may_skip_listing=True)


def kept(store, found):
    return store.read(contract.console_key("test", found.machine.arn))


def test_B1_what_the_console_says_before_the_end_is_kept_though_ec2_never_posts_it(
    controller, fleet, store, overdue
):
    fleet.latest = ConsoleOutput(PANIC, None)
    controller.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason=BY_US)

    found = outcome_of(controller, overdue)

    assert found.outcome is Outcome.BOOT_TIMEOUT
    assert found.console_uri.endswith("console.txt")
    assert kept(store, found) == PANIC.encode()


def test_whoever_concludes_finds_what_was_heard_by_one_who_died(
    controller, fleet, store, overdue, clock
):
    fleet.latest = ConsoleOutput(PANIC, None)
    controller.tick()
    controller.release()
    fleet.set("i-0", "terminated", reason=BY_US)

    found = outcome_of(heir_of(store, fleet), overdue)

    assert kept(store, found) == PANIC.encode()


def test_the_agents_words_before_the_end_count(controller, fleet, store, overdue):
    """The machine gave up, said so, and did not power off."""
    words = marker_of(overdue, phase="credentials", exit_code=None, error="network", message="away")
    fleet.latest = ConsoleOutput(words, None)
    controller.tick()
    fleet.set("i-0", "terminated", reason=BY_US)

    found = outcome_of(controller, overdue)

    assert (found.outcome, found.is_from_console) == (Outcome.SETUP_FAILED, True)


def test_what_ec2_posts_at_the_end_comes_before_what_was_heard(
    controller, fleet, store, overdue, clock
):
    fleet.latest = ConsoleOutput(PANIC, None)
    controller.tick()
    fleet.set("i-0", "terminated", reason=BY_US)
    fleet.console = ConsoleOutput(PANIC + "reboot: power down\r\n", clock.at)

    found = outcome_of(controller, overdue)

    assert kept(store, found) == (PANIC + "reboot: power down\r\n").encode()


def test_what_ec2_posted_at_the_start_does_not(controller, fleet, store, overdue, clock):
    fleet.latest = ConsoleOutput("booting\r\n" + PANIC, None)
    controller.tick()
    fleet.set("i-0", "terminated", reason=BY_US)
    fleet.console = ConsoleOutput("booting\r\n", clock.at - 60)

    found = outcome_of(controller, overdue)

    assert kept(store, found) == f"booting\r\n{PANIC}".encode()


@pytest.mark.parametrize(
    "error",
    [
        AccessError("ec2:GetConsoleOutput", "denied."),
        AwsUnavailableError("ec2:GetConsoleOutput", "ReadTimeoutError"),
        RequestRefusedError("ec2:GetConsoleOutput", "AWS says UnsupportedOperation"),
    ],
    ids=["denied", "too late", "not on Nitro"],
)
def test_a_console_that_cannot_be_read_keeps_no_machine_alive(controller, fleet, overdue, error):
    fleet.latest = error

    controller.tick()

    assert fleet.terminated == ["i-0"]


def test_a_machine_is_ended_in_the_next_pass_whatever_listening_to_it_came_to(
    controller, fleet, overdue, clock
):
    """An answer that nobody foresaw; the queue, where the kill stands, is not listed again yet."""
    fleet.latest = KeyError("Timestamp")
    look_again(controller, overdue)
    clock.at += 4

    look_again(controller, overdue)

    assert fleet.terminated == ["i-0"]


def test_a_console_is_asked_for_once_however_often_the_end_is_tried(
    controller, fleet, overdue, clock
):
    asked, read = [], fleet.read_console

    def note(instance_id, **how):
        asked.append(how)
        return read(instance_id, **how)

    fleet.read_console = note
    for _ in range(3):
        clock.at += 4
        look_again(controller, overdue)

    assert asked == [{"as_of_now": True}]
    assert fleet.terminated == ["i-0"] * 3


def test_a_bucket_that_takes_no_console_keeps_no_machine_alive(
    controller, fleet, store, overdue, monkeypatch
):
    put = store.s3.put_object

    def refuse(**request):
        if request["Key"].endswith("console-before-end.txt"):
            raise AwsUnavailableError("s3:PutObject", "503")
        return put(**request)

    monkeypatch.setattr(store.s3, "put_object", refuse)
    fleet.latest = ConsoleOutput(PANIC, None)

    controller.tick()

    assert fleet.terminated == ["i-0"]


@pytest.mark.parametrize("comes", [True, False])
def test_the_console_of_a_machine_that_ec2_lost_is_waited_for_a_moment(
    controller, fleet, store, submit, clock, comes
):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = NOTHING
    fleet.set("i-0", "terminated", reason="Server.InternalError")

    assert outcome_of(controller, record) is None
    clock.at += 5
    if comes:
        fleet.console = ConsoleOutput("host gone", clock.at)
    else:
        assert outcome_of(controller, record) is None
        clock.at += CONSOLE_GRACE_SECONDS

    found = outcome_of(controller, record)
    assert found.outcome is Outcome.INFRA_FAILED
    assert (found.console_uri is not None) is comes


@pytest.mark.parametrize("reason", ["Server.SpotInstanceTermination", BY_US])
def test_where_the_reason_says_it_all_nobody_waits(controller, fleet, store, submit, reason):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.console = NOTHING
    fleet.set("i-0", "terminated", reason=reason)

    assert outcome_of(controller, record) is not None
