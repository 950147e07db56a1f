"""Runs of one payer and date: who waits for whom, and what they are told."""

import pytest

from airflow_ephemeral_ec2.model.admission import Because, Queue, admit
from airflow_ephemeral_ec2.model.at_work import AtWork
from airflow_ephemeral_ec2.model.queue import EntryState, Stage
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry
from tests.unit.model.queue_sample import NOW

MEMBER = {"dependents": ("claims",)}
CLAIMS = {"depends_on": ("member",)}


def entry(job, run, **changes):
    return make_entry(f"{job}-{run}", job, run_key=run, dag_id="payer_acme", **changes)


@pytest.mark.parametrize(
    ("out", "asks", "why"),
    [
        pytest.param(
            entry("claims", "one"), entry("claims", "two"),
            "waits for another run of payer_acme, which does the same now", id="the same",
        ),
        pytest.param(
            entry("member", "one", **MEMBER), entry("claims", "two", **CLAIMS),
            "waits for member of another run of payer_acme, which writes what this one reads",
            id="what it reads is written",
        ),
        pytest.param(
            entry("claims", "one", **CLAIMS), entry("member", "two", **MEMBER),
            "waits for claims of another run of payer_acme, which reads, directly or not, "
            "what this one writes",
            id="what it writes is read",
        ),
        pytest.param(
            entry("claims", "one", array_size=4, array_index=3),
            entry("claims", "two", array_size=5, array_index=1),
            "waits for another run of payer_acme, which does the same now",
            id="an array that was resized",
        ),
        pytest.param(
            entry("claims", "one", array_size=4, array_index=3),
            entry("claims", "two", array_size=4, array_index=1), None, id="another part",
        ),
        pytest.param(entry("claims", "one"), entry("claims", "one"), None, id="the same run"),
        pytest.param(
            entry("claims", "one"), entry("claims", "two", business_date="2026-03-02"), None,
            id="another date",
        ),
        pytest.param(
            entry("claims", "one"), entry("claims", "two", payer="pea"), None, id="another payer"
        ),
        pytest.param(
            entry("claims", "one", cross_run_order=False), entry("claims", "two"), None,
            id="it has opted out",
        ),
        pytest.param(
            entry("claims", "one"), entry("claims", "two", cross_run_order=False), None,
            id="this one has opted out",
        ),
        pytest.param(entry("claims", ""), entry("claims", "two"), None, id="its run is unknown"),
        pytest.param(entry("claims", "one"), entry("claims", ""), None, id="the run is unknown"),
        pytest.param(
            entry("member", "one", **MEMBER),
            entry("claims", "two", **CLAIMS, order_override="loaded by hand"), None,
            id="an override reads what there is",
        ),
        pytest.param(
            entry("claims", "one"), entry("claims", "two", order_override="loaded by hand"),
            "waits for another run of payer_acme, which does the same now",
            id="an override does not do the same twice",
        ),
    ],
)  # fmt: skip
def test_who_is_out_is_waited_for_by_other_runs_that_would_get_in_its_way(out, asks, why):
    assert AtWork([out]).find_obstacle(asks) == why


def test_of_several_runs_the_same_one_is_named_whatever_was_counted_first():
    ways = [entry("claims", run).model_copy(update={"dag_id": run}) for run in ("b", "a", "c")]

    for out in (ways, ways[::-1]):
        assert "another run of a," in AtWork(out).find_obstacle(entry("claims", "two"))


def decide(waiting, *, out=(), limit=8):
    """Decide about entries in their order of arrival."""
    states = {
        found.name: EntryState(sequence=n, stage=Stage.LAUNCHED, vcpus=found.vcpus, launched_at=NOW)
        for n, found in enumerate(out)
    }
    states |= {found.name: EntryState(sequence=99 + n) for n, found in enumerate(waiting)}
    queue = Queue([*out, *waiting], states, dict.fromkeys(states, "pool"))
    return admit(queue, {"pool": Limits(vcpus=limit)}, NOW)


def test_who_has_room_reserved_does_not_lose_it_to_another_run_that_does_the_same():
    """The smaller one of the other run would fit the gap, and then hold the larger one up."""
    runs = entry("other", "zero", vcpus=4, max_runtime=9_000)
    large = entry("claims", "two", vcpus=8, priority=900)
    small = entry("claims", "one", vcpus=2, priority=500)

    decision = decide([small, large], out=[runs])

    assert decision.admitted == ()
    assert decision.heads == (large.name,)
    assert decision.waiting[small.name].because is Because.BLOCKED
    assert "comes first" in decision.waiting[small.name].reason


def test_a_scheduled_run_goes_on_before_a_backfill_that_would_begin_again():
    """Its member has ended; were the backfill's member begun now, its claims would wait for it."""
    claims = entry("claims", "scheduled", **CLAIMS)
    member = entry("member", "backfill", **MEMBER, priority=900, is_backfill=True)

    decision = decide([member, claims])

    assert decision.admitted == (claims.name,)
    assert "what this one writes" in decision.waiting[member.name].reason


def test_a_more_important_run_that_waits_for_parts_of_an_old_array_is_not_passed_by_the_others():
    old = [entry("claims", f"old{n}", array_size=4, array_index=n, priority=100) for n in (0, 1)]
    old = [one.model_copy(update={"run_key": "old"}) for one in old]
    new = entry("claims", "new", array_size=5, array_index=2, priority=900)

    decision = decide([old[1], new], out=[old[0]])

    assert decision.admitted == ()


def test_who_can_never_fit_is_told_that_and_holds_up_no_other_run():
    large, small = entry("claims", "one", vcpus=16), entry("claims", "two", vcpus=2)

    decision = decide([large, small], out=[entry("other", "zero")])

    assert decision.waiting[large.name].because is Because.NEVER
    assert decision.admitted == (small.name,)
