"""
What comes of machine and work, whatever happens to the task: on Airflow 2.11 and 3.3.

The nightly run plays every case on both; the ordinary one plays some, on 2.11.
"""
# ruff: noqa: T201 - prints the table

import shutil

import pytest

from tests.system.airflow_versions import VERSIONS, AirflowTwo
from tests.system.attempt_cases import CASES
from tests.system.attempt_world import play_all

pytestmark = pytest.mark.timeout(900)
BOUNDED = [case for case in CASES if not case.is_nightly]
SCOPES = {
    # The newest is what the other tests here run on; both at once take twice as long.
    "bounded": ([AirflowTwo], BOUNDED, ()),
    "whole": (VERSIONS, CASES, pytest.mark.nightly),
}
ROWS = [
    pytest.param(scope, version.name, case, marks=marks, id=f"{scope}-{version.name}-{case.name}")
    for scope, (versions, cases, marks) in SCOPES.items()
    for version in versions
    for case in cases
]
WORLDS = [
    pytest.param(scope, version.name, marks=marks, id=f"{scope}-{version.name}")
    for scope, (versions, _, marks) in SCOPES.items()
    for version in versions
]


@pytest.fixture(scope="module")
def play(request):
    """Return a function that plays the cases once: {version: World}."""
    played, homes = {}, []

    def play_once(scope):
        if scope not in played:
            versions, cases, _ = SCOPES[scope]
            home, played[scope] = play_all(versions, cases)
            homes.append(home)
            _print_table(played[scope])
        return played[scope]

    yield play_once
    for home in homes:
        if request.session.testsfailed:
            print(f"logs: {home}")
        else:
            shutil.rmtree(home)


def _print_table(worlds):
    print("\nAirflow  case                 attempts                        machines  runs  state")
    for version, world in worlds.items():
        for name, found in world.found.items():
            outcomes = ", ".join(found.outcomes)
            print(
                f"{version:<8} {name:<20} {outcomes:<31} {found.machines:>8} {found.executions:>5}"
                f"  {found.state}"
            )


@pytest.mark.parametrize(("scope", "version", "case"), ROWS)
def test_an_attempt_runs_its_work_once_and_the_next_one_opens_only_when_it_should(
    play, scope, version, case
):
    world = play(scope)[version]
    found = world.found[case.name]

    assert case.name not in world.unfinished, found
    assert case.expected.is_met_by(found), (case.expected, found)


@pytest.mark.parametrize(("scope", "version"), WORLDS)
def test_two_schedulers_gave_out_the_tasks(play, scope, version):
    assert play(scope)[version].schedulers >= 2
