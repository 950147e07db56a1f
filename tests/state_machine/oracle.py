"""What must never happen, checked at the moment when it would."""

import json
from collections import Counter

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.model.admission import QueueEntry, QueueState, Stage, admission_order
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.plan import TAG_ENVIRONMENT, LaunchRecord
from airflow_ephemeral_ec2.model.record import OutcomeRecord

GOOD = ("succeeded", "skipped")


class Oracle:
    """Watches every change of the bucket, every launch and every start of the work."""

    def __init__(self, world):
        self._world = world
        self.violations: list[str] = []
        self.executions: Counter[tuple[str, int]] = Counter()
        self.outcomes: dict[tuple[str, int], OutcomeRecord] = {}
        self._requests: dict[str, str] = {}

    def complain(self, text):
        self.violations.append(text)

    # -- machines ----------------------------------------------------------------------------

    def see_request(self, request):
        """The request of a token never changes: what EC2 binds must be the same bytes."""
        token, text = request["ClientToken"], repr(sorted(request.items()))
        if self._requests.setdefault(token, text) != text:
            self.complain(f"token {token} was used with two different requests")

    def see_termination(self, machine):
        if machine.tags[TAG_ENVIRONMENT] != "test":
            self.complain(f"{machine.instance_id} of another environment was terminated")

    def see_reaping(self, machine):
        """The reaper ends what nobody waits for any more, and what is too old."""
        age = self._world.clock.now - machine.launched_at
        is_open = self.name_of(machine) in self.entries()
        is_ours = self.holder_of(*machine.attempt) in (None, machine.instance_id)
        killed = f"test/queue/{self.name_of(machine)}.kill.json" in self._world.s3.objects
        is_young = age <= machine.config["max_lifetime"]
        is_well = machine.reason == "" and not killed
        if is_open and is_ours and is_young and is_well:
            self.complain(f"the reaper ended {machine.instance_id}, whose attempt is open")

    def see_work_start(self, machine):
        """The fence: once per attempt, not after its end, not beside another attempt."""
        self._world.reach("machine: work started")
        jobkey, attempt = machine.attempt
        self.executions[machine.attempt] += 1
        if self.executions[machine.attempt] > 1:
            self.complain(f"the work of attempt {attempt} was started twice")
        if machine.attempt in self.outcomes:
            self.complain(f"the work of attempt {attempt} was started after its end was recorded")
        for other in self._world.ec2.own:
            same_job = other.attempt[0] == jobkey and other.attempt[1] != attempt
            if (
                same_job
                and other.may_work
                and self.holder_of(*other.attempt)
                in (
                    None,
                    other.instance_id,
                )
            ):
                self.complain(
                    f"attempt {attempt} started while attempt {other.attempt[1]} may still run"
                )

    # -- the bucket --------------------------------------------------------------------------

    def see_change(self, key, old, new):
        folder, _, name = key.rpartition("/")
        if name == "outcome.json":
            self._see_outcome(key, old, new)
        elif folder == "test/queue" and new is None and old is not None:
            self._see_closing(name.removesuffix(".json"))
        elif name == "queue-state.json" and new is not None:
            self._see_admission(old, new)
        elif name.startswith("start-lock-") and old is not None:
            self.complain("a start lock was overwritten")

    def _see_outcome(self, key, old, new):
        if old is not None or new is None:
            self.complain(f"an outcome was changed: {key}")
            return
        record = OutcomeRecord.model_validate_json(new)
        attempt = (record.jobkey, record.attempt)
        self.outcomes[attempt] = record
        self._world.reach(f"outcome: {record.outcome}")
        holder = self.holder_of(*attempt)
        for machine in self._world.ec2.own:
            if (
                machine.attempt == attempt
                and machine.may_work
                and holder
                in (
                    None,
                    machine.instance_id,
                )
            ):
                self.complain(f"{record.outcome} recorded while {machine.instance_id} may run")
        self._compare_with_report(record, attempt, holder)

    def _compare_with_report(self, record, attempt, holder):
        machine = self._world.ec2.machines.get(holder or "")
        report = self.report_of(machine) if machine else None
        if record.outcome in GOOD:
            words = report or (machine.report if machine and machine.console else None)
            if words is None or words["exit_code"] != 0 or self.executions[attempt] != 1:
                self.complain(f"{record.outcome} without the report of a finished job: {report}")
        elif report and report["phase"] == "job" and report["exit_code"] == 0:
            self.complain(f"the job reported exit 0, recorded is {record.outcome}: {record.reason}")
        elif report and report["phase"] == "job" and record.exit_code != report["exit_code"]:
            self.complain(
                f"the report was not found, recorded is {record.outcome}: {record.reason}"
            )

    def _see_closing(self, name):
        jobkey, _, number = name.removesuffix(".kill").rpartition("-a")
        if (jobkey, int(number)) not in self.outcomes and not name.endswith(".kill"):
            self.complain(f"entry {name[-4:]} was closed before its outcome was recorded")

    def _see_admission(self, old, new):
        before, after = _read_state(old), _read_state(new)
        if before is None or after is None or before.is_rebuilt:
            return
        entries = self.entries()
        admitted = [
            name
            for name, state in after.entries.items()
            if state.stage is not Stage.WAITING
            and name in entries
            and (name not in before.entries or before.entries[name].stage is Stage.WAITING)
        ]
        waiting = [
            name
            for name, state in after.entries.items()
            if state.stage is Stage.WAITING and name in entries and not entries[name].supersedes
        ]
        for name in admitted:
            mine = admission_order(entries[name], after.entries[name])
            for other in waiting:
                if admission_order(entries[other], after.entries[other]) < mine:
                    self.complain(
                        f"{entries[name].label} was admitted before {entries[other].label}"
                    )
        in_use = sum(s.vcpus for s in after.entries.values() if s.stage is not Stage.WAITING)
        if admitted and in_use > (after.limit_vcpus or in_use):
            self.complain(f"{in_use} vCPU admitted, {after.limit_vcpus} allowed")

    # -- what the bucket says ------------------------------------------------------------------

    def entries(self):
        found = {}
        for key, body in self._world.s3.objects.items():
            name = key.removeprefix("test/queue/").removesuffix(".json")
            if key.startswith("test/queue/") and not name.endswith(".kill"):
                found[name] = QueueEntry.model_validate_json(body)
        return found

    @staticmethod
    def name_of(machine):
        return entry_name(*machine.attempt)

    def holder_of(self, jobkey, attempt):
        """Who may run: an instance id, "" when it was revoked, None when the lock is free."""
        prefix = contract.attempt_prefix("test", jobkey, attempt) + "start-lock-"
        for key, body in self._world.s3.objects.items():
            if key.startswith(prefix):
                return json.loads(body).get("instance_id", "")
        return None

    def report_of(self, machine):
        body = self._world.s3.objects.get(contract.report_key("test", machine.arn))
        return None if body is None else json.loads(body)

    def records(self):
        return [
            LaunchRecord.model_validate_json(body)
            for key, body in self._world.s3.objects.items()
            if key.endswith("/launch.json")
        ]

    def check_quiescence(self):
        """Nothing lives, nothing is open, everything has an outcome."""
        for machine in self._world.ec2.own:
            if machine.is_alive:
                self.complain(f"{machine.instance_id} of attempt {machine.attempt[1]} still lives")
        left = [key for key in self._world.s3.objects if key.startswith("test/queue/")]
        if left:
            self.complain(f"still in the queue: {left}")
        known = {(record.jobkey, record.attempt) for record in self.records()}
        for jobkey, attempt in sorted(known - set(self.outcomes)):
            self.complain(f"no outcome of {entry_name(jobkey, attempt)}")
        for attempt, count in self.executions.items():
            if count != 1:
                self.complain(f"attempt {attempt[1]} was executed {count} times")
        histories = [key for key in self._world.s3.objects if key.startswith("test/history/")]
        if len(histories) != len(self.outcomes):
            self.complain(f"{len(histories)} history records of {len(self.outcomes)} outcomes")


def _read_state(body):
    try:
        return QueueState() if body is None else QueueState.model_validate_json(body)
    except ValueError:
        return None
