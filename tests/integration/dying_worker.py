"""
A process of ours that dies by ``kill -9`` in the middle of what it does.

Run: ``python -m tests.integration.dying_worker FILE OPERATION KEY``, with the local EC2 in the
environment. FILE has a pickled pair: what to do, and with what. It dies before the first call of
OPERATION (``s3.PutObject``, ``ec2.TerminateInstances``) whose ``Key`` has KEY in it.
"""

import os
import pickle
import signal
import sys
from pathlib import Path

import boto3

from airflow_ephemeral_ec2.hooks.attempts import kill_attempt, open_attempt
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread
from tests.integration.waiter_process import PATH_STYLE


def make_clients(operation, key):
    def die(params, **_):
        if key in params.get("Key", ""):
            os.kill(os.getpid(), signal.SIGKILL)

    def make_client(service, config):
        client = boto3.client(service, config=config.merge(PATH_STYLE))
        client.meta.events.register(f"provide-client-params.{operation}", die)
        return client

    return Clients(make_client)


def main(file, operation, key):
    clients = make_clients(operation, key)
    store, fleet = JobStore(clients.s3, "records", "demo"), Fleet(clients, "demo", "us-east-1")
    what, given = pickle.loads(file.read_bytes())
    match what:
        case "open":
            open_attempt(store, fleet, given)
        case "kill":
            kill_attempt(store, fleet, *given)
        case "wait":
            controller = Controller(store, lambda *_: fleet)
            wait_in_this_thread(controller, given, lambda _: None, poll_seconds=0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
