"""Runs inside Airflow: the scheduler imports what every task imports, before it forks its workers.

Two cores run many tasks in these tests; each saves most of a second. A task is a process of its
own all the same.
"""

# ruff: noqa: PLC0415 - only the scheduler imports it

import importlib
import sys
from typing import ClassVar

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@hookimpl
def on_starting(component):
    if getattr(component, "job_type", "") == "SchedulerJob":
        import crash_session

        for name in ("operators.ec2", "triggers.ec2"):
            importlib.import_module(f"airflow_ephemeral_ec2.{name}")
        crash_session.warm()


class WarmScheduler(AirflowPlugin):
    """Listens for the start of the scheduler."""

    name = "warm_scheduler"
    listeners: ClassVar = [sys.modules[__name__]]
