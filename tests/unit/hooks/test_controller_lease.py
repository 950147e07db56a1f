"""Who decides: the lease of the controller, by the bucket's clock and no host's."""

from email.utils import formatdate

import pytest

from airflow_ephemeral_ec2.hooks.clock import BucketClock
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.model.plan import plan_entry
from tests.unit.hooks.scripted import Turnable, name_of

DATE_SECONDS = 2.0
"""S3 tells the time in whole seconds: two hosts that know it from there differ by no more."""
POLL_SECONDS = 5


class HostClock(BucketClock):
    """What one host makes of its own clocks and of the dates that S3 answers with."""

    def __init__(self, aws, skew_seconds):
        self._aws, self.skew_seconds, self.stood_still_seconds = aws, skew_seconds, 0.0
        super().__init__(
            monotonic=lambda: aws.at - 900.0 - self.stood_still_seconds,
            wall=lambda: aws.at + self.skew_seconds,
        )

    def observe(self, _date_header):
        super().observe(formatdate(self._aws.at, usegmt=True))


class WatchedFleet:
    """Notes what one host asks of EC2."""

    def __init__(self, fleet):
        self._fleet, self.asked = fleet, []

    def __getattr__(self, name):
        found = getattr(self._fleet, name)
        if callable(found):
            self.asked.append(name)
        return found


class Host:
    """A host with one controller."""

    def __init__(self, aws, store, fleet, skew_seconds):
        self.clock = HostClock(aws, skew_seconds)
        self.store = JobStore(store.s3, store.bucket, store.environment)
        self.store.clock = self.clock
        self.fleet = WatchedFleet(fleet)
        self.controller = Controller(
            self.store, lambda *_: self.fleet, in_parallel=one_by_one, list_every=3
        )

    def tick(self):
        self.controller.tick()

    def record_states(self):
        """Note whom each queue state names that this host writes from now on."""
        written, write = [], self.store.write_state

        def record(state, etag):
            written.append(set(state.entries))
            return write(state, etag)

        self.store.write_state = record
        return written


@pytest.fixture
def aws():
    """The time as AWS has it."""
    clock = Turnable()
    clock.at = 1_780_000_000.0
    return clock


@pytest.fixture
def make_host(aws, store, fleet):
    return lambda skew_seconds=0.0: Host(aws, store, fleet, skew_seconds)


@pytest.fixture
def ask(store, make_record):
    def ask(jobkey):
        record = store.write_launch(make_record(jobkey=jobkey))
        store.write_entry(plan_entry(record))
        return record

    return ask


SKEWS = pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (300, -300), (-7_200, 7_200)], ids=["none", "minutes", "hours"]
)


@SKEWS
def test_a_dead_holder_is_followed_after_60_seconds(make_host, aws, fleet, ask, first, second):
    holder, heir = make_host(first), make_host(second)
    running = ask("a" * 40)
    holder.tick()
    died_at, waiting = aws.at, ask("b" * 40)

    aws.at += 20
    heir.tick()
    aws.at += 35
    while len(fleet.requests) < 2:
        heir.tick()
        aws.at += 1

    assert abs(aws.at - died_at - 60) <= DATE_SECONDS
    assert heir.controller.machine_of(name_of(running)) == "i-0"
    assert heir.controller.machine_of(name_of(waiting)) == "i-1"


@SKEWS
def test_a_live_holder_is_never_followed_whatever_the_clocks_of_hosts_do(
    make_host, aws, ask, first, second
):
    holder, other = make_host(first), make_host(second)
    holder.tick()

    for turn in range(48):
        aws.at += POLL_SECONDS
        if not turn % 12:
            ask(f"{turn:040d}")
        for host in (other, holder):
            host.clock.skew_seconds += 600 if turn % 2 else -630
            host.tick()

    assert other.fleet.asked == []
    assert holder.fleet.asked.count("run") == 4


def test_a_holder_that_was_suspended_has_lost_the_lease_and_launches_nothing(
    make_host, aws, fleet, ask
):
    """Its own clock has not moved meanwhile: it believes that its lease is good."""
    holder, heir = make_host(), make_host()
    ask("a" * 40)
    holder.tick()
    aws.at += 300
    holder.clock.stood_still_seconds = 300.0
    heir.tick()
    ask("b" * 40)

    for _ in range(20):
        holder.tick()
        aws.at += POLL_SECONDS
        heir.tick()

    assert len(fleet.requests) == 2
    assert holder.fleet.asked.count("run") == heir.fleet.asked.count("run") == 1


def test_a_host_that_was_suspended_follows_in_time_all_the_same(make_host, aws, fleet, ask):
    """Its own clock stood still for five minutes; S3 has told it since."""
    holder, heir = make_host(), make_host()
    holder.tick()
    heir.tick()
    aws.at += 300
    heir.clock.stood_still_seconds = 300.0
    holder.tick()
    heir.tick()
    died_at, _ = aws.at, ask("a" * 40)

    aws.at += 55
    while not fleet.requests:
        heir.tick()
        aws.at += 1

    assert abs(aws.at - died_at - 60) <= DATE_SECONDS


def test_a_lease_that_was_given_back_is_taken_at_once(make_host, fleet, ask):
    holder, heir = make_host(), make_host()
    holder.tick()
    ask("a" * 40)
    holder.controller.release()

    heir.tick()

    assert len(fleet.requests) == 1


def test_a_holder_that_takes_the_lease_back_between_two_passes_reads_the_queue_first(
    make_host, aws, fleet, ask
):
    """The other has ended meanwhile what this one remembers."""
    holder, heir = make_host(), make_host()
    ask("a" * 40)
    holder.tick()
    fleet.set("i-0", "terminated", reason="Server.InternalError")
    aws.at += 61
    heir.tick()
    assert not heir.controller.has_work
    heir.controller.release()
    ask("b" * 40)

    for _ in range(2):
        holder.controller.launch()
    assert len(fleet.requests) == 1
    holder.tick()

    assert len(fleet.requests) == 2


def test_a_controller_that_is_closed_in_a_pass_launches_no_more_and_takes_no_lease(
    make_host, store, ask
):
    """Its process ends: the lease that it gives back is not taken again behind its back."""
    holder, heir = make_host(), make_host()
    ask("a" * 40)
    write_state = holder.store.write_state

    def close_meanwhile(*args):
        holder.controller.close()
        return write_state(*args)

    holder.store.write_state = close_meanwhile
    holder.tick()
    holder.tick()
    holder.controller.release()

    assert holder.fleet.asked.count("run") == 0
    assert store.read_state()[0].lease is None
    heir.tick()
    assert heir.fleet.asked.count("run") == 1


def test_a_pass_that_has_the_lease_again_lists_the_queue_anew(make_host, aws, fleet, store, ask):
    """Between two passes the lease was lost and given back: what the other has ended is over."""
    holder, heir = make_host(), make_host()
    ended, running = name_of(ask("a" * 40)), name_of(ask("b" * 40))
    holder.controller.follow([running])
    for machine in ("i-0", "i-1"):
        fleet.set(machine, "running")
    fleet.set("i-0", "terminated", reason="Server.InternalError")
    aws.at += 61
    heir.tick()
    holder.controller.launch()
    heir.controller.release()
    written = holder.record_states()

    holder.controller.follow([running])

    assert written
    assert all(names == {running} for names in written)
    assert holder.controller.machine_of(ended) is None


def test_who_is_closed_in_the_middle_of_a_pass_ends_it(store):
    ledger = QueueLedger(store)
    assert ledger.take_lease()
    assert ledger.keep_lease()

    ledger.close()

    assert not ledger.keep_lease()
    ledger.release()
    assert store.read_state()[0].lease is None
