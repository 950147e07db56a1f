"""A process of ours: its AWS calls pass a gate that can fail, freeze or kill it at any of them."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace

from botocore.exceptions import ReadTimeoutError

from airflow_ephemeral_ec2.hooks.clock import BucketClock
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from tests.state_machine.simulated_ec2 import ec2_error
from tests.state_machine.simulated_s3 import s3_error

PAUSES = frozenset({"pause before", "pause after"})
FAULTS = tuple(
    (kind, where)
    for where, kinds in {
        "any": ("crash before", "crash after", "pause before", "pause after", "offline"),
        "s3": ("unavailable", "timeout", "answer lost"),
        "put": ("conflict", "retried", "answer lost", "crash before", "crash after", "pause before"),
        "delete": ("crash before", "crash after", "answer lost"),
        "ec2": ("unavailable", "answer lost", "throttled", "expired"),
        "launch": (
            "unavailable", "unavailable after", "answer lost", "throttled", "double",
            "crash before", "crash after", "pause before",
        ),
        "terminate": ("unavailable", "crash before", "crash after"),
    }.items()
    for kind in kinds
)  # fmt: skip
_SCOPES = {
    "put_object": ("s3", "put"),
    "delete_object": ("s3", "delete"),
    "run_instances": ("ec2", "launch"),
    "terminate_instances": ("ec2", "terminate"),
}


LAUNCH_FAULTS = tuple(pair for pair in FAULTS if pair[1] == "launch")
ENDING_FAULTS = tuple(pair for pair in FAULTS if pair[1] in ("put", "delete", "terminate"))
KILL_FAULTS = tuple(pair for pair in FAULTS if pair[1] == "terminate")
RARE = frozenset({"launch", "terminate", "delete"})
"""Calls of which one activity makes few."""


class ProcessKilled(BaseException):
    """kill -9: nothing of the process runs on."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which call of its kind (counted from 0)."""

    kind: str
    where: str
    at: int

    def __str__(self):
        return f"fault: {self.where} {self.kind}"


class Gate:
    """Lets AWS calls through, one by one."""

    def __init__(self, world):
        self._world = world
        self.fault = None
        self._left = 0
        self._is_offline = False
        self.freeze = None

    def arm(self, fault):
        self.fault, self._is_offline = fault, False
        self._left = fault.at if fault else 0

    def call(self, service, operation, execute, request):
        kind = self._next_kind(service, operation)
        if self._is_offline:
            raise ReadTimeoutError(endpoint_url=service)
        if kind is None:
            return execute(**request)
        self._world.reach(str(self.fault))
        if kind.startswith(("crash", "pause")):
            return self._interrupt(kind, execute, request)
        if kind == "offline":
            self._is_offline = True
            raise ReadTimeoutError(endpoint_url=service)
        return self._fail(kind, service, execute, request)

    def _next_kind(self, service, operation):
        fault = self.fault
        scopes = ("any", service, *_SCOPES.get(operation, ()))
        if fault is None or self._left < 0 or fault.where not in scopes:
            return None
        self._left -= 1
        return fault.kind if self._left < 0 else None

    def _interrupt(self, kind, execute, request):
        stop = self._freeze if kind in PAUSES else self._die
        if kind.endswith("before"):
            stop()
            return execute(**request)
        try:
            return execute(**request)
        finally:
            stop()

    def _freeze(self):
        self.freeze()

    def _die(self):
        raise ProcessKilled

    def _fail(self, kind, service, execute, request):  # noqa: C901 - a table of faults
        is_s3 = service == "s3"
        match kind:
            case "unavailable":
                raise (s3_error if is_s3 else ec2_error)("InternalError", 500, "Call")
            case "unavailable after":
                execute(**request)
                raise ec2_error("InternalError", 500)
            case "timeout":
                raise ReadTimeoutError(endpoint_url=service)
            case "answer lost":
                execute(**request)
                raise ReadTimeoutError(endpoint_url=service)
            case "conflict":
                raise s3_error("ConditionalRequestConflict", 409, "PutObject")
            case "retried":
                # botocore asks again by itself when an answer is lost, and shows only the last.
                execute(**request)
                return execute(**request)
            case "throttled":
                raise ec2_error("RequestLimitExceeded", 503)
            case "expired":
                raise ec2_error("RequestExpired")
            case "double":
                answer = execute(**request)
                self._world.ec2.launch(request)
                return answer
        raise AssertionError(kind)


class _Client:
    """One boto3 client: every call goes through the gate."""

    def __init__(self, gate, service, target):
        self._gate, self._service, self._target = gate, service, target

    def __getattr__(self, operation):
        execute = getattr(self._target, operation)
        return lambda **request: self._gate.call(self._service, operation, execute, request)

    def get_paginator(self, operation):
        call = getattr(self, operation)

        def paginate(**request):
            request.pop("PaginationConfig", None)
            yield call(**request)

        return SimpleNamespace(paginate=paginate)


class Activity:
    """Something that a process does in a thread of its own, because it may freeze half way."""

    def __init__(self, process, work):
        self._process, self._work = process, work
        self._go, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        self.is_killed = self.is_over = False
        self.answer = None
        self.error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def proceed(self):
        """Run until it freezes or is over; returns whether it is over."""
        self._process.gate.freeze = self._freeze
        self._go.release()
        self._rest.acquire()
        return self.is_over

    def kill(self):
        self.is_killed = True
        while not self.proceed():
            pass

    def _run(self):
        self._go.acquire()
        try:
            if not self.is_killed:
                self.answer = self._work()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error
        self.is_over = True
        self._rest.release()

    def _freeze(self):
        self._rest.release()
        self._go.acquire()
        if self.is_killed:
            raise ProcessKilled


class Process:
    """A worker, a triggerer or a reaper: its own clients, its own clock, its own memory."""

    def __init__(self, world, skew_seconds=0.0):
        self.gate = Gate(world)
        s3 = _Client(self.gate, "s3", world.s3)
        self.ec2 = _Client(self.gate, "ec2", world.ec2)
        self.store = JobStore(s3, "records", "test")
        read, wall = world.clock.read, lambda: world.clock.read() + skew_seconds
        self.store.clock = BucketClock(monotonic=read, wall=wall)
        clients = SimpleNamespace(
            launch=self.ec2, ec2=self.ec2, quick_ec2=self.ec2, account_id="123456789012"
        )
        self.fleet = Fleet(clients, "test", "us-east-1")
        self.frozen: Activity | None = None

    def run(self, work, fault=None):
        """
        Do something; returns its answer, or None when the process froze or the call failed.

        :raises ProcessKilled: the process is gone
        """
        self.gate.arm(fault)
        if fault is None or fault.kind not in PAUSES:
            return work()
        self.frozen = Activity(self, work)
        return self.resume()

    def resume(self):
        activity = self.frozen
        if activity is None or not activity.proceed():
            return None
        self.frozen = None
        if activity.error is not None:
            raise activity.error
        return activity.answer

    def kill(self):
        if self.frozen is not None:
            self.frozen.kill()
            self.frozen = None
