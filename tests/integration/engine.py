"""The engine as the operator drives it, against one local EC2."""

import json
import time

from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, open_attempt
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.spec import Limits, LockFile
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread

AMI = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


class Engine:
    """Opens the attempts of one run and waits for them, as the operator does; one local EC2."""

    def __init__(self, cloud, make_spec, run=None):
        self.cloud = cloud
        clients = Clients(lambda service, config: cloud.client(service, config=config))
        self.store = JobStore(clients.s3, "records", "demo")
        self.fleet = Fleet(clients, "demo", "us-east-1")
        self._make_spec = make_spec
        self._run = run or f"run {time.time_ns()}"

    def open(self, lock=None, **changes):
        return self.submit(self.order(lock, **changes))

    def order(self, lock=None, **changes):
        """Make what a new task instance asks for; ``submit`` it as often as the task is tried."""
        return LaunchOrder(
            spec=self._make_spec(**{"ami": AMI} | changes),
            lock=lock or LockFile(),
            table="payers.yaml",
            table_version="t",
            limits=Limits(),
            identity=TaskIdentity("endings", self._run, f"job {time.time_ns()}"),
            epoch="e",
            business_date="2026-03-01",
        )

    def submit(self, order):
        return open_attempt(self.store, self.fleet, order)

    def controller(self):
        return Controller(self.store, lambda _connection, _region: self.fleet)

    def wait(self, opened, controller=None):
        return wait_in_this_thread(
            controller or self.controller(), opened.name, lambda _: None, poll_seconds=0.2
        ).outcome

    def run(self, command, **changes):
        return self.wait(self.open(command=command, **changes))

    def launch(self, opened):
        """Return a controller that has launched the attempt's machine."""
        controller = self.controller()
        self.cloud.wait_for(
            lambda: controller.tick() is not None and controller.machine_of(opened.name),
            what="the launch",
        )
        return controller

    def forget_refusals(self):
        """Forget which offerings had no capacity: the next test is another day."""
        # Empty, not gone: a state that is gone is made again from EC2.
        self.cloud.client("s3").put_object(
            Bucket="records", Key="demo/queue-state.json", Body=b'{"revision": "emptied"}'
        )

    # -- what the endpoint saw ---------------------------------------------------------------

    def launches(self, opened):
        """Return the RunInstances calls of an attempt's tokens, as the endpoint logged them."""
        tokens = {placement.client_token for placement in opened.record.placements}
        return [
            call
            for call in self.cloud.calls("RunInstances")
            if call["params"].get("ClientToken") in tokens
        ]

    def machines(self, opened):
        """Return the instances that were ever launched for an attempt."""
        tokens = {placement.client_token for placement in opened.record.placements}
        return {
            line["instance_id"]
            for line in self.cloud.lines()
            if line.get("event") == "state" and line["client_token"] in tokens
        }

    def wait_for_lock(self, opened):
        """Wait until a machine has taken the attempt's start lock; return its id."""
        self.cloud.wait_for(lambda: self.store.read_start_lock(opened.record), what="start lock")
        return self.store.read_start_lock(opened.record).instance_id

    def wait_for_job(self, opened):
        """Wait until the job's first output is in the bucket."""
        holder = self.wait_for_lock(opened)
        arn = f"arn:aws:ec2:us-east-1:{self.cloud.account}:instance/{holder}"
        self.cloud.wait_for(lambda: b"".join(self.store.read_log(arn)), what="the job's output")
        return holder

    def counts(self, payer_bucket, prefix):
        """Return how often a job ran, by the objects that it wrote about itself."""
        found = self.cloud.client("s3").list_objects_v2(Bucket=payer_bucket, Prefix=prefix)
        return [json.dumps(item["Key"]) for item in found.get("Contents", ())]
