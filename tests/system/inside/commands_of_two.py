"""Runs inside Airflow 2: commands, one JSON document a line, in a process that is warm.

An ``airflow`` command takes seconds to start; here each is called as the command line would:
``{"argv": ["dags", "trigger", "payer_acme"]}``. What Airflow 2 has no command for is done as its
REST API does: ``{"delete_run": ["payer_acme", "manual__1"]}``, or as its web page does:
``{"mark": ["payer_acme", "manual__1", "claims", "failed"]}``. Each is answered by one line.
"""
# ruff: noqa: BLE001, T201 - stdout is its answer; whatever goes wrong is one

import contextlib
import json
import sys

from airflow.cli.cli_parser import get_parser
from airflow.models.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState


def run(command):
    if "argv" in command:
        given = get_parser().parse_args(command["argv"])
        given.func(given)
        return
    if "mark" in command:
        dag_id, run_id, task_id, state = command["mark"]
        dag = DagBag(read_dags_from_db=True).get_dag(dag_id)
        dag.set_task_instance_state(task_id=task_id, run_id=run_id, state=TaskInstanceState(state))
        return
    dag_id, run_id = command["delete_run"]
    with create_session() as session:
        session.delete(session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one())


def main():
    print(json.dumps({"ready": True}), flush=True)
    answers = sys.stdout
    for line in sys.stdin:
        answer = {}
        with contextlib.redirect_stdout(sys.stderr):
            try:
                run(json.loads(line))
            except SystemExit as end:
                answer = {"error": f"exit {end.code}"} if end.code else {}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


main()
