"""What is done for each path: each act returns when which task was killed (seconds since 1970)."""

import contextlib
import os
import signal
import time

from tests.system.killing_paths import REAP_SECONDS
from tests.system.killing_world import (
    DATE,
    RUN,
    TRIGGERERS,
    go_on,
    sleep_until,
    stop,
)
from tests.system.services import wait_until

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL, as Airflow's own supervisor has it."""
STARTS = "SELECT task_id, start_date FROM task_instance WHERE dag_id = %s"
RUN_START = "SELECT start_date FROM dag_run WHERE dag_id = %s"
TIMEOUTS = "SELECT task_id, trigger_timeout FROM task_instance WHERE dag_id = %s"


def _each(world, path, act):
    moments = {}
    for dag_id, run_id, task_id in world.tasks(path):
        moments[task_id] = time.time()
        act(dag_id, run_id, task_id)
    return moments


def _all(world, path, moment):
    return {task_id: moment for _, _, task_id in world.tasks(path)}


def mark_failed(world, path):
    return _each(world, path, lambda *task: world.airflow.mark(*task, "failed"))


def mark_success(world, path):
    return _each(world, path, lambda *task: world.airflow.mark(*task, "success"))


def clear(world, path):
    if world.is_three():
        return _each(world, path, lambda *task: world.airflow.clear(*task, DATE))
    # The command line of Airflow 2 reads all DAG files first: one command for all tasks.
    moment = time.time()
    world.airflow.clear(path.dag_id, RUN, "job-.*", DATE)
    return _all(world, path, moment)


def delete(world, path):
    moment = time.time()
    world.airflow.delete_running(path.dag_id, RUN)
    return _all(world, path, moment)


def execution_timeout(world, path):
    seconds = world.seconds_of(path)
    found = dict(world.airflow.rows(STARTS, path.dag_id))
    moments = {
        task: start.timestamp() + seconds + path.pause * int(task.rpartition("-")[2])
        for task, start in found.items()
    }
    sleep_until(max(moments.values()))
    return moments


def dagrun_timeout(world, path):
    ((start,),) = world.airflow.rows(RUN_START, path.dag_id)
    moment = start.timestamp() + world.seconds_of(path)
    sleep_until(moment)
    return _all(world, path, moment)


def deferral_timeout(world, path):
    found = dict(world.airflow.rows(TIMEOUTS, path.dag_id))
    moments = {task: moment.timestamp() for task, moment in found.items() if moment}
    sleep_until(max(moments.values(), default=0.0))
    return moments


def _terminate(world, path):
    """Return when which task's process was told to stop, and the processes."""
    found = wait_until(
        lambda: len(set((now := world.task_processes(path)).values())) >= world.n and now,
        60,
        "the task processes",
    )
    moments = {}
    for pid, task in found.items():
        is_first = task not in moments
        moments.setdefault(task, time.time())
        os.kill(pid, signal.SIGTERM)
        if is_first:
            time.sleep(path.pause)
    return moments, list(found)


def sigterm(world, path):
    return _terminate(world, path)[0]


def drain(world, path):
    """End the workers as a node does that goes; wait until each task has been tried again."""
    tries = "SELECT count(*) FROM task_instance WHERE dag_id = %s AND try_number > 1 AND state = %s"
    _, pids = _terminate(world, path)
    # Airflow 3 runs on_kill at SIGTERM and goes on; whoever sent it kills after a grace.
    time.sleep(GRACE_SECONDS)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: world.airflow.rows(tries, path.dag_id, "running")[0][0] >= world.n,
        180 + 10 * world.n,
        "the retries",
    )
    time.sleep(5.0)
    return {}


def stalled(world, path):
    """Stop one triggerer until the other has all triggers, then let it go on."""
    before = set(world.triggerer_of_triggers())
    stop(world, TRIGGERERS[0])
    try:
        # Only who held triggers can lose them.
        wait_until(
            lambda: before - {None} - set(world.triggerer_of_triggers()),
            90,
            f"the other triggerer to adopt what one of {sorted(before)} held",
        )
        time.sleep(5.0)
    finally:
        go_on(world, TRIGGERERS[0])
    time.sleep(20.0)
    return {}


def down(world, path):
    """End every triggerer, kill, and run the reaper until nothing lives."""
    for part in TRIGGERERS:
        world.signal_tree(part, signal.SIGKILL)
    moments = mark_failed(world, path)
    began = time.time()
    for number in range(1, 5):
        sleep_until(began + (number - 1) * REAP_SECONDS)
        world.reap(number)
        if number > 1:
            sleep_until(time.time() + REAP_SECONDS)
            if not world.machines.living(path.name):
                break
    world.bring_back()
    return moments


ACTS = {
    "failed": mark_failed,
    "success": mark_success,
    "clear": clear,
    "delete": delete,
    "execution_deferred": execution_timeout,
    "execution_worker": execution_timeout,
    "dagrun": dagrun_timeout,
    "deferral": deferral_timeout,
    "sigterm": sigterm,
    "drain": drain,
    "stalled": stalled,
    "down": down,
}
