"""What comes of machine and work, whatever happens to the task: on Airflow 2.11 and 3.3."""
# ruff: noqa: T201 - prints the table

import shutil

import pytest

from tests.system.airflow_versions import VERSIONS
from tests.system.attempt_cases import CASES
from tests.system.attempt_world import play_all

pytestmark = pytest.mark.timeout(900)
NAMES = [version.name for version in VERSIONS]
BOUNDED = [case for case in CASES if not case.is_nightly]


ROWS = [
    *(("bounded", case) for case in BOUNDED),
    *(pytest.param("whole", case, marks=pytest.mark.nightly) for case in CASES),
]
SCOPES = ["bounded", pytest.param("whole", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module")
def play(request):
    """Return a function that plays the cases once: {version: World}."""
    played, homes = {}, []

    def play_once(scope):
        if scope not in played:
            home, played[scope] = play_all(VERSIONS, BOUNDED if scope == "bounded" else CASES)
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


@pytest.mark.parametrize("version", NAMES)
@pytest.mark.parametrize(
    ("scope", "case"), ROWS, ids=lambda one: one if isinstance(one, str) else one.name
)
def test_an_attempt_runs_its_work_once_and_the_next_one_opens_only_when_it_should(
    play, scope, version, case
):
    world = play(scope)[version]
    found = world.found[case.name]

    assert case.name not in world.unfinished, found
    assert case.expected.is_met_by(found), (case.expected, found)


@pytest.mark.parametrize("version", NAMES)
@pytest.mark.parametrize("scope", SCOPES)
def test_two_schedulers_gave_out_the_tasks(play, scope, version):
    assert play(scope)[version].schedulers >= 2
