"""
A triggerer process, as far as waiting goes: one loop, one controller, and who waits in it.

Run: ``python -m tests.integration.waiter_process CALLS ANSWERS LEASE_SECONDS``, with the local EC2
in the environment. Reads names of attempts from stdin, a line each, and waits for all of them. Each
EC2 call is a line of the file CALLS, each ending one of ANSWERS: the attempt's name and outcome. What
the waiting are told is in a file beside it.
"""

import asyncio
import sys
from pathlib import Path

import boto3
from botocore.config import Config

from airflow_ephemeral_ec2.hooks import queue_ledger
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.triggers.waiting import ControllerTask

PATH_STYLE = Config(s3={"addressing_style": "path"})


def append(file, line):
    # Not to stdout: Airflow 3 logs there.
    with file.open("a", encoding="ascii") as opened:
        opened.write(f"{line}\n")


def open_controller(calls_file):
    def note(model, **_):
        append(calls_file, model.name)

    def make_client(service, config):
        client = boto3.client(service, config=config.merge(PATH_STYLE))
        client.meta.events.register("before-call.ec2", note)
        return client

    clients = Clients(make_client)
    fleet = Fleet(clients, "demo", "us-east-1")
    return Controller(JobStore(clients.s3, "records", "demo"), lambda *_: fleet)


async def wait(task, name, answers_file):
    heard_file = answers_file.with_suffix(".heard")
    ending = await task.wait(name, lambda line: append(heard_file, f"{name} {line}"))
    append(answers_file, f"{name} {ending.outcome.outcome}")


async def main(calls_file, answers_file, lease_seconds):
    # A dead controller's lease is waited out; a test need not wait as long as a user.
    queue_ledger.LEASE_SECONDS = lease_seconds
    task, waits = ControllerTask(lambda: open_controller(calls_file), 0.2), []
    while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
        waits.append(asyncio.create_task(wait(task, name, answers_file)))
    await asyncio.gather(*waits)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
