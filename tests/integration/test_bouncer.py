"""The benchmark itself, with few payers: the engine is in order, and a broken one is found out."""

import json

import pytest

from benchmarks import bouncer
from benchmarks.bouncer_pools import SimulatedPools
from benchmarks.bouncer_trace import LIMIT, make_trace

PAYERS = 16


@pytest.fixture(scope="module")
def trace():
    return make_trace(4, PAYERS, seconds=(15.0, 120.0), load=1.6)


def test_the_engine_passes_nobody_and_uses_what_the_limit_has(trace):
    found = bouncer.measure(bouncer.run_engine(trace), bouncer.GRACE_SECONDS)

    assert (found["inversions"], found["over_limit"]) == (0, 0), found["examples"]
    assert found["launches"] == 4 * PAYERS
    assert found["utilisation"] > 0.5


def test_two_runs_have_the_same_order(trace):
    one, other = (
        bouncer.measure(bouncer.run_engine(trace), bouncer.GRACE_SECONDS) for _ in range(2)
    )

    assert one == other


def test_a_killed_controller_changes_nothing_about_the_law(trace):
    found = bouncer.measure(bouncer.run_engine(trace, is_killed=True), bouncer.GRACE_SECONDS)

    assert (found["inversions"], found["over_limit"]) == (0, 0), found["examples"]
    assert found["launches"] == 4 * PAYERS


def test_the_judge_finds_out_an_engine_without_reservation(trace):
    found = bouncer.measure(bouncer.run_engine(trace, is_broken=True), bouncer.GRACE_SECONDS)

    assert found["inversions"] > 0


def test_simulated_pools_keep_the_limit_and_not_the_order(trace):
    found = bouncer.measure(SimulatedPools(trace).run(), bouncer.GRACE_SECONDS)

    assert found["over_limit"] == 0
    assert found["inversions"] > 0
    assert found["launches"] == 4 * PAYERS


def test_a_seed_gives_one_trace_that_needs_all_sizes():
    one, same, other = (make_trace(n, 200, seconds=(15.0, 120.0), load=1.0) for n in (4, 4, 5))

    assert one == same != other
    assert {job.vcpus for job in one} == {2, 4, 8, 16, 32}
    assert max(job.vcpus for job in one) <= LIMIT


def test_the_last_line_is_one_json_object(capsys):
    bouncer.main(["--quick", "--payers", "4", "--json"])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("ours", "pools"):
        assert {"inversions", "makespan_s", "utilisation", "last_member_s", "passes"} <= set(
            found[name]
        )
    assert found["ours"]["is_order_identical"] is True


def test_nobody_is_passed_by_what_a_killed_controller_had_only_admitted():
    trace = make_trace(16, 40, seconds=(15.0, 120.0), load=0.8)
    found = bouncer.measure(bouncer.run_engine(trace, is_killed=True), bouncer.GRACE_SECONDS)

    assert found["inversions"] == 0, found["examples"]
