"""A fleet whose machines change only when a test says so, and words about attempts."""

import json
import threading
from hashlib import sha256

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import AwsUnavailableError
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.model.outcome import Observation
from airflow_ephemeral_ec2.model.plan import TAG_ATTEMPT, TAG_JOBKEY, plan_entry
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.sweep import Shown


class ScriptedFleet:
    """Machines that change state only when a test says so; answers launches from a script."""

    def __init__(self):
        self.machines: dict[str, Observation] = {}
        self.tokens: dict[str, str] = {}
        self.owners: dict[str, tuple[str, int]] = {}
        self.requests: list[dict] = []
        self.refusals: list[Exception] = []
        self.terminated: list[str] = []
        self.forced: list[str] = []
        self.impaired: set[str] = set()
        self.shown: dict[str, str] = {}
        self.is_blind = False
        self.clients = None
        self.console = ConsoleOutput("", float("inf"))
        self.latest: ConsoleOutput | Exception = ConsoleOutput("", None)

    def run(self, request):
        self.requests.append(request)
        if self.refusals:
            error = self.refusals.pop(0)
            if error is not None:
                raise error
        token = request["ClientToken"]
        if token not in self.tokens:
            self.tokens[token] = f"i-{len(self.tokens)}"
            tags = {t["Key"]: t["Value"] for t in request["TagSpecifications"][0]["Tags"]}
            self.owners[self.tokens[token]] = (tags[TAG_JOBKEY], int(tags[TAG_ATTEMPT]))
            self.set(self.tokens[token], "pending", request["InstanceType"])
        return self.machines[self.tokens[token]]

    def set(self, instance_id, state, instance_type="m7i.large", reason=""):
        self.machines[instance_id] = Observation(
            instance_id,
            state,
            reason,
            instance_type,
            "us-east-1a",
            arn=f"arn:aws:ec2:us-east-1:1:instance/{instance_id}",
        )

    def observe(self, instance_ids, *, all_states, launched_at=(), ending=None):
        found = [self.machines[i] for i in instance_ids if i in self.machines]
        return Shown([o for o in found if all_states or o.state not in ("pending", "running")])

    def find_attempt(self, jobkey, attempt):
        """Find by tags; machines that no request made belong to whoever asks."""
        wanted = (jobkey, attempt)
        return [m for i, m in self.machines.items() if self.owners.get(i, wanted) == wanted]

    def find_machines(self):
        if self.is_blind:
            raise AwsUnavailableError("ec2:DescribeInstances", "blind")
        return [(name, self.machines[one]) for one, name in self.shown.items()]

    def find_account(self):
        return "123456789012"

    def find_by_token(self, token):
        return self.machines.get(self.tokens.get(token, ""))

    def terminate(self, instance_ids, *, force=False):
        self.terminated += list(instance_ids)
        self.forced += list(instance_ids) if force else []

    def find_impaired(self):
        return frozenset(self.impaired)

    def read_console(self, instance_id, *, as_of_now=False):
        found = self.latest if as_of_now else self.console
        if isinstance(found, Exception):
            raise found
        return found


def refusal(code, status=400):
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "RunInstances",
    )


class Turnable:
    """A clock that moves when told."""

    def __init__(self):
        self.at = 1_000.0

    def now(self):
        return self.at

    def observe(self, header):
        pass


def name_of(record):
    return plan_entry(record).name


def report(store, record, instance_id, exit_code=0, **fields):
    arn = f"arn:aws:ec2:us-east-1:1:instance/{instance_id}"
    body = {
        "jobkey": record.jobkey,
        "attempt": record.attempt,
        "nonce": record.nonce,
        "instance_id": instance_id,
        "phase": "job",
        "exit_code": exit_code,
        "wall_seconds": 3.0,
    } | fields
    store.write_new(contract.report_key("test", arn), json.dumps(body).encode())


def outcome_of(controller, record):
    return controller.follow([name_of(record)]).get(name_of(record))


def marker_of(record, **fields):
    facts = {"nonce": record.nonce, "phase": "job", "exit_code": 0, "error": None} | fields
    text = json.dumps(facts)
    return f"{contract.CONSOLE_MARKER} {text} {sha256(text.encode()).hexdigest()[:16]}\r\n"


def lock_for(store, record, instance_id="i-0"):
    key = contract.start_lock_key("test", record.jobkey, record.attempt, record.nonce)
    assert store.write_new(key, json.dumps({"instance_id": instance_id}).encode())


def take_lock(store, record, instance_id):
    key = contract.start_lock_key("test", record.jobkey, 1, record.nonce)
    store.write_new(key, json.dumps({"instance_id": instance_id}).encode())


def forget_launches(store, controller):
    """What a crash between RunInstances and the next write of the queue state leaves behind."""
    state, etag = store.read_state()
    entries = {
        name: found.model_copy(
            update={
                "stage": Stage.ADMITTED,
                "placement": None,
                "instance_id": None,
                "launched_at": None,
                "arn": None,
            }
        )
        for name, found in state.entries.items()
    }
    store.write_state(state.model_copy(update={"entries": entries, "lease": None}), etag)


def heir_of(store, fleet):
    return Controller(store, lambda _connection, _region: fleet)


def wait_until(holds):
    """Let other threads run until something holds; False when it does not within 5 s."""
    never = threading.Event()
    return any(holds() or never.wait(0.01) for _ in range(500))
