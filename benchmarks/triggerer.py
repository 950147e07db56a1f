"""Airflow's own trigger runner in a process of its own, fed from a file instead of a database.

    python -m benchmarks.triggerer TRIGGERS.json

Prints a JSON line for each thing that happens: the runner's pid, a trigger that started, fired or
failed, a warning of the runner's watchdog. Only the supervisor's database half is replaced; the
runner (``TriggerRunner``), its process, its socket and its log channel are Airflow's.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from airflow.executors import workloads
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time.comms import GetTaskStates, SetXCom, TaskStatesResult

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

BLOCKED = "Triggerer's async thread was blocked for "


@attrs.define(kw_only=True)
class FileSupervisor(TriggerRunnerSupervisor):
    """A supervisor without a job and a database, as its base class allows for."""

    def heartbeat(self) -> None:
        pass

    def load_triggers(self) -> None:
        pass

    def emit_metrics(self) -> None:
        pass

    def clean_unused(self) -> None:
        pass

    def handle_events(self) -> None:
        while self.events:
            entry = self.events.popleft()
            payload = getattr(entry.event, "payload", None)
            # Ours names an error by "error", the amazon provider by its status.
            failed = isinstance(payload, dict) and (
                "error" in payload or payload.get("status") == "error"
            )
            say(what="event", trigger=entry.trigger_id, ok=not failed, text=str(payload)[:300])

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:  # noqa: ANN401 - Airflow's
        """Answer what a task's trigger asks the API server; the rest is the base class's."""
        if isinstance(msg, SetXCom):
            say(what="xcom")
            self.send_msg(None, request_id=req_id, error=None)
        elif isinstance(msg, GetTaskStates):
            states = {
                name: dict.fromkeys(msg.task_ids or [], "deferred") for name in msg.run_ids or []
            }
            self.send_msg(TaskStatesResult(task_states=states), request_id=req_id, error=None)
        else:
            super()._handle_request(msg, log, req_id)

    def handle_failed_triggers(self) -> None:
        while self.failed_triggers:
            trigger_id, lines = self.failed_triggers.popleft()
            say(what="event", trigger=trigger_id, ok=False, text=(lines or ["no event"])[-1][:300])

    def _process_log_messages_from_subprocess(self) -> Generator[None, bytes | bytearray, None]:
        while True:
            line = yield
            try:
                found = json.loads(line)
            except ValueError:
                found = {"level": "error", "event": f"not a log line: {line[:200]!r}"}
            text = str(found.get("event", ""))
            if text == "Trigger fired event":
                say(what="fired", trigger=found["trigger_id"])
            elif text.startswith("trigger ") and text.endswith(" starting"):
                say(what="started", trigger=found["trigger_id"])
            elif text.startswith(BLOCKED):
                say(what="blocked", seconds=float(text.removeprefix(BLOCKED).split()[0]))
            elif found.get("level") in ("warning", "error", "critical"):
                say(what="log", level=found["level"], text=text[:300], detail=_last_line(found))


def _last_line(found: dict[str, Any]) -> str:
    """Name the exception of a log line, if it has one."""
    detail = found.get("exception") or found.get("error_detail") or ""
    if isinstance(detail, list) and detail:
        return f"{detail[-1].get('exc_type')}: {detail[-1].get('exc_value')}"[:300]
    return str(detail)[-300:]


def say(**facts: object) -> None:
    print(json.dumps({"t": time.monotonic(), **facts}), flush=True)


def workload(number: int, trigger: dict[str, Any]) -> workloads.RunTrigger:
    """Write what Airflow's supervisor sends for a deferred task."""
    task = TaskInstanceDTO(
        id=uuid.uuid4(),
        task_id="job",
        dag_id=f"payer_{number}",
        run_id="scheduled__2026-03-01T02:00:00+00:00",
        try_number=1,
        dag_version_id=uuid.uuid4(),
        map_index=-1,
        pool_slots=1,
        priority_weight=1,
        queue="default",
    )
    return workloads.RunTrigger(
        id=number,
        classpath=trigger["classpath"],
        encrypted_kwargs=Trigger.encrypt_kwargs(trigger["kwargs"]),
        ti=task,
    )


def serve(supervisor: FileSupervisor, triggers: Iterable[dict[str, Any]], per_loop: int) -> None:
    """Hand the triggers over as a real supervisor does, so many at once, and stay until told to stop."""
    waiting = list(enumerate(triggers, start=1))
    is_stopped = False

    def stop(*_: object) -> None:
        nonlocal is_stopped
        is_stopped = True

    signal.signal(signal.SIGTERM, stop)
    while not is_stopped and supervisor.is_alive():
        if not supervisor.creating_triggers and waiting:
            batch, waiting = waiting[:per_loop], waiting[per_loop:]
            supervisor.creating_triggers.extend(workload(n, trigger) for n, trigger in batch)
        supervisor.run_once()
    supervisor.kill(signal.SIGTERM, escalation_delay=5, force=True)


def main() -> None:
    supervisor = FileSupervisor.start(capacity=100_000)
    say(what="runner", pid=supervisor.pid)
    # Read after the fork: these are not in the runner's memory.
    triggers = json.loads(Path(sys.argv[1]).read_text())
    serve(supervisor, triggers, per_loop=500)


if __name__ == "__main__":
    main()
