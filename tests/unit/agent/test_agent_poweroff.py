"""How the machine ends; nothing here may end the machine that runs the tests."""

import json

import pytest

from airflow_ephemeral_ec2.agent.poweroff import LADDER, TIMER, power_off


def steps(environ: dict[str, str], works: set[str] = frozenset()) -> list[list[str]]:
    done: list[list[str]] = []

    def run(argv) -> int:
        done.append(list(argv))
        return 0 if " ".join(argv) in works else 1

    power_off(environ, run, lambda _: None)
    return done


@pytest.mark.parametrize("text", ["/x/off", json.dumps(["/x/off", "-a"])])
def test_a_replacement_is_all_that_is_ever_run(text: str):
    done = steps({"EPHEMERAL_EC2_POWEROFF": text})

    assert done == [["/x/off"]] if not text.startswith("[") else [["/x/off", "-a"]]


def test_E4_without_one_the_ladder_goes_from_gentle_to_the_kernels_switch():
    """Power off does not take effect."""
    done = steps({})

    assert done == [list(step) for step in (TIMER, *LADDER)]
    assert "sysrq-trigger" in done[-1][-1]


def test_a_systemd_that_obeys_is_left_to_work_while_the_timer_waits():
    done = steps({}, {"systemctl poweroff"})

    assert done == [list(TIMER), ["systemctl", "poweroff"]]
    assert "systemctl --force poweroff" in TIMER[-1]


def test_E5_the_machine_is_never_halted():
    """None: halt is never among the commands."""
    assert "halt" not in json.dumps([LADDER, TIMER])
