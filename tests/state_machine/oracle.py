"""What must never happen, checked at the moment when it would."""

import json
from collections import Counter

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.model.admission import rank
from airflow_ephemeral_ec2.model.arrivals import limits_in_force
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.order import parse_history
from airflow_ephemeral_ec2.model.plan import TAG_ENVIRONMENT, LaunchRecord
from airflow_ephemeral_ec2.model.queue import QueueEntry, QueueState, Stage
from airflow_ephemeral_ec2.model.record import OutcomeRecord

RUBBISH = b'{"version": 9, "nonce": "rub'
"""What whoever tampers puts into the place of an object."""
SKIP = 99
GOOD = ("succeeded", "skipped")
READ_BY = {"member": "reports"}
"""Job -> the job that reads what it writes."""


class Oracle:
    """Watches every change of the bucket, every launch and every start of the work."""

    def __init__(self, world):
        self._world = world
        self.violations: list[str] = []
        self.executions: Counter[tuple[str, int]] = Counter()
        self.outcomes: dict[tuple[str, int], OutcomeRecord] = {}
        self._holders: dict[tuple[str, int], str] = {}
        """Who took the start lock, "" where it was revoked; whatever becomes of the object."""
        self._requests: dict[str, str] = {}
        self._written_at: dict[str, float] = {}
        """Job -> when its newest success was recorded."""
        self.launched: dict[tuple[str, int], LaunchRecord] = {}
        """The launch record of each attempt as it was written; whatever becomes of the object."""
        self._wishes: set[tuple[str, int]] = set()
        self._epochs: dict[str, int] = {}

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
            return
        is_well = machine.state in ("pending", "running") and not machine.is_impaired
        if is_well and machine.is_holder and not machine.is_overdue and not self._may_end(machine):
            self.complain(
                f"{machine.instance_id} was terminated, though it holds the start lock of attempt "
                f"{machine.attempt[1]}, is within its deadline, and nobody asked for its end"
            )

    def _may_end(self, machine):
        """Whether the world gave a reason to end a machine that may work."""
        return self._is_asked_for(machine.attempt) or self._is_tampered(machine.attempt, machine)

    def job_of(self, machine):
        record = self.launched.get(machine.attempt)
        return record.spec.job if record else None

    def see_wish(self, attempt):
        """Somebody wants this attempt to end."""
        self._wishes.add(attempt)

    def see_new_epoch(self, task_id, epoch):
        """Whoever cleared the task wants what an earlier epoch has opened to end."""
        self._epochs[task_id] = max(self._epochs.get(task_id, 0), epoch)

    def _is_asked_for(self, attempt):
        if attempt in self._wishes:
            return True
        record = self._record_of(*attempt)
        return record is not None and int(record.epoch[1:]) < self._epochs.get(record.task_id, 0)

    def _record_of(self, jobkey, attempt):
        return self.launched.get((jobkey, attempt))

    def _is_tampered(self, attempt, machine=None):
        jobkey, number = attempt
        places = [f"/{jobkey}/a{number}/", f"/{entry_name(jobkey, number)}."]
        if machine is not None:
            places.append(f"/{machine.arn}/")
        return any(place in key for key in self._world.tampered for place in places)

    def _is_nonce_lost(self, attempt):
        """
        Whether nobody can name the attempt's start lock: both that say it were overwritten.

        Then no machine can be locked out that a process asks for which was suspended meanwhile.
        """
        jobkey, number = attempt
        record = f"test/jobs/{jobkey}/a{number}/launch.json"
        return {record, f"test/queue/{entry_name(*attempt)}.json"} <= set(self._world.tampered)

    def see_reaping(self, machine):
        """The reaper ends what nobody waits for any more, and what is too old."""
        age = self._world.clock.now - machine.launched_at
        is_open = self.name_of(machine) in self.entries()
        is_ours = self.holder_of(*machine.attempt) in (None, machine.instance_id)
        killed = self._is_killed(machine.attempt)
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
        if machine.attempt in self.outcomes and not self._is_nonce_lost(machine.attempt):
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
        self._see_other_runs(machine)

    def _see_other_runs(self, machine):
        """
        No two runs do the same at the same time.

        But for a machine that EC2 did not show when the queue state was lost: nobody knew of it.
        """
        record = self._record_of(*machine.attempt)
        for other in self._world.ec2.own:
            theirs = self._record_of(*other.attempt)
            if theirs is None or not _do_the_same(record, theirs):
                continue
            self._world.reach("work started after another run's")
            may_begin = self.holder_of(*other.attempt) in (None, other.instance_id)
            is_known = not (self._world.has_lost_state or self._is_tampered(other.attempt, other))
            if other.may_work and may_begin and is_known:
                self.complain(f"{record.spec.job} started beside the same of another run")

    # -- the bucket --------------------------------------------------------------------------

    def see_change(self, key, old, new):
        folder, _, name = key.rpartition("/")
        if name == "outcome.json":
            self._see_outcome(key, old, new)
        elif folder == "test/queue" and new is None and old is not None:
            self._see_closing(name.removesuffix(".json"))
        elif name == "queue-state.json" and new is not None:
            self._see_admission(old, new)
        elif name == "launch.json" and new not in (None, RUBBISH):
            record = LaunchRecord.model_validate_json(new)
            self.launched.setdefault((record.jobkey, record.attempt), record)
        elif name.startswith("start-lock-"):
            self._see_lock(key, old, new)

    def _see_lock(self, key, old, new):
        if old is not None or new is None:
            self.complain("a start lock was overwritten")
            return
        _, _, jobkey, attempt, _ = key.split("/")
        holder = json.loads(new).get("instance_id", "")
        self._holders[jobkey, int(attempt.removeprefix("a"))] = holder

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
            if machine.attempt == attempt:
                self._see_survivor(record, machine, holder)
        self._see_killed(record, attempt)
        self._compare_with_report(record, attempt, holder)
        if record.outcome == "succeeded" and record.job in READ_BY:
            self._see_new_input(READ_BY[record.job])
            self._written_at[record.job] = self._world.clock.now
        if record.outcome == "succeeded" and record.job in READ_BY.values():
            self._see_old_input(record, self._world.ec2.machines[holder])

    def _see_survivor(self, record, machine, holder):
        """
        An attempt ends after its machines.

        Not before one that nobody has ended, even if nobody may run its work any more; but one that
        is locked out by another machine ends by itself, and what EC2 does not show nobody can see.
        """
        if machine.may_work and holder in (None, machine.instance_id):
            self.complain(f"{record.outcome} recorded while {machine.instance_id} may run")
        elif machine.may_go_on and machine.is_shown and holder in (None, "", machine.instance_id):
            self.complain(
                f"{record.outcome} recorded while {machine.instance_id} is {machine.state}, "
                f"at {machine.step.name}; lock: {holder or 'revoked'}; {record.reason}"
            )

    def _see_killed(self, record, attempt):
        """Nobody is told that somebody killed what nobody has killed."""
        by_others = any(m.attempt == attempt and m.is_ended_by_others for m in self._world.ec2.own)
        if record.outcome == "killed" and not (by_others or self._is_asked_for(attempt)):
            self.complain(f"killed, though nobody asked for it: {record.reason}")

    def _see_new_input(self, reader):
        """A success that was made of older input is marked before the newer is known."""
        history = self._history(reader)
        last = max(history.finished, key=lambda a: a.attempt, default=None)
        if last is not None and last.outcome == "succeeded":
            self._world.reach("a success is stale")
            if last.name not in history.stale:
                self.complain(f"{reader} succeeded before its input was new, and is not stale")

    def _see_old_input(self, record, machine):
        """A success whose input was written again while it ran is marked before it is known."""
        read = next(job for job, reader in READ_BY.items() if reader == record.job)
        # EC2 tells launch times in whole seconds.
        if self._written_at.get(read, 0.0) > machine.launched_at + 1:
            self._world.reach("a success is stale from the start")
            stale = self._history(record.job).stale
            if entry_name(record.jobkey, record.attempt) not in stale or not record.stale_inputs:
                self.complain(f"{record.job} read what {read} has written again, and is not stale")

    def _history(self, job):
        prefix = f"test/history/acme/{job}/2026-03-01/"
        names = [k.removeprefix(prefix) for k in self._world.s3.objects if k.startswith(prefix)]
        return parse_history(names)

    def _compare_with_report(self, record, attempt, holder):
        machine = self._world.ec2.machines.get(holder or "")
        report = self.report_of(machine) if machine else None
        if record.outcome == "tampered" and not self._world.tampered:
            self.complain(f"nobody tampered with anything: {record.reason}")
        # Of what EC2 has forgotten, or not posted, there is no console.
        is_known = machine and machine.posted_at is not None and not machine.is_evicted
        if is_known and machine.is_lying and record.outcome in GOOD:
            self.complain(f"{record.outcome}, though report and console contradict each other")
        elif record.outcome in GOOD:
            self._see_success(record, attempt, machine, report)
        elif report and not (machine.is_lying or record.outcome == "tampered"):
            self._see_failure(record, attempt, report)

    def _see_success(self, record, attempt, machine, report):
        may_ask_console = machine and machine.console and not self._is_corrupt(machine)
        words = report or (machine.report if may_ask_console else None)
        if words is None or self.executions[attempt] != 1:
            self.complain(f"{record.outcome} without the report of a finished job: {report}")
        elif words["exit_code"] != (0 if record.outcome == "succeeded" else SKIP):
            self.complain(f"{record.outcome}, reported was exit {words['exit_code']}")

    def _see_failure(self, record, attempt, report):
        is_spot = report["interrupted_by"] == "spot" and not self._is_killed(attempt)
        if report["phase"] == "job" and report["exit_code"] == 0:
            self.complain(f"the job reported exit 0, recorded is {record.outcome}: {record.reason}")
        elif report["phase"] == "job" and record.exit_code != report["exit_code"]:
            self.complain(
                f"the report was not found, recorded is {record.outcome}: {record.reason}"
            )
        elif is_spot and record.outcome != "spot_interrupted":
            self.complain(f"the report names spot, recorded is {record.outcome}")

    def _is_corrupt(self, machine):
        return self._world.s3.objects.get(contract.report_key("test", machine.arn)) == RUBBISH

    def _is_killed(self, attempt):
        return f"test/queue/{entry_name(*attempt)}.kill.json" in self._world.s3.objects

    def _see_closing(self, name):
        jobkey, _, number = name.removesuffix(".kill").rpartition("-a")
        if (jobkey, int(number)) not in self.outcomes and not name.endswith(".kill"):
            self.complain(f"entry {name[-4:]} was closed before its outcome was recorded")

    def _see_admission(self, old, new):
        before, after = _read_state(old), _read_state(new)
        if before is None or after is None or before.is_rebuilt:
            return
        entries = self.entries()
        waited = {n for n, s in before.entries.items() if s.stage is Stage.WAITING}
        waiting = {n for n, s in after.entries.items() if s.stage is Stage.WAITING and n in entries}
        admitted = [
            name
            for name in after.entries
            if name in entries
            and name not in waiting
            # What has ended and is in the queue again only leaves it again.
            and (entries[name].jobkey, entries[name].attempt) not in self.outcomes
            and not self._is_found_again((entries[name].jobkey, entries[name].attempt))
            and (name in waited or name not in before.entries)
        ]
        places = {name: rank(entries[name], after.entries[name].sequence) for name in entries
                  if name in after.entries}  # fmt: skip
        for name in admitted:
            self._see_order(entries[name])
            for other in waiting:
                is_free = self._is_free(entries[other], before, after, places)
                if is_free and places[other] < places[name]:
                    self.complain(
                        f"{entries[name].label} was admitted before {entries[other].label}"
                    )
        in_use = sum(s.vcpus for s in after.entries.values() if s.stage is not Stage.WAITING)
        for pool, limits in limits_in_force(after, entries.values()).items():
            if admitted and in_use > (limits.vcpus or in_use):
                self.complain(f"{in_use} vCPU admitted in {pool}, {limits.vcpus} allowed")

    def _is_found_again(self, attempt):
        """Whether it is not admitted, but its machine of before the queue state was lost is seen."""
        return self._world.has_lost_state and any(
            machine.attempt == attempt and machine.launched_at < self._world.clock.now
            for machine in self._world.ec2.own
        )

    def _is_free(self, entry, before, after, places):
        """Whether nothing of its own holds an entry back, and no other run."""
        earlier = (entry_name(entry.jobkey, number) for number in range(1, entry.attempt))
        # Also one that nobody can read any more is waited for.
        is_first = not any(f"test/queue/{name}.json" in self._world.s3.objects for name in earlier)
        is_ours = not self._is_tampered((entry.jobkey, entry.attempt))
        # Of those admitted now only who is more important may keep it waiting.
        out = _names_out(before) | {
            name for name in _names_out(after) if places.get(name, ()) < places[entry.name]
        }
        is_alone = not any(self._is_at_it(entry, *other, out) for other in self.launched.items())
        is_bound = entry.supersedes or entry.depends_on
        return is_first and is_ours and is_alone and not is_bound

    def _is_at_it(self, entry, attempt, record, out):
        """Whether an attempt of another run does the same, or may: nobody can read it any more."""
        is_out = entry_name(*attempt) in out or self._is_tampered(attempt)
        return is_out and _do_the_same(record, entry)

    def _see_order(self, entry):
        """What the job depends on has succeeded, in whatever run, and the last try of it has."""
        for job in entry.depends_on:
            self._world.reach("admitted after what it depends on")
            last = max(self._history(job).finished, key=lambda a: a.attempt, default=None)
            if last is None or last.outcome != "succeeded":
                self.complain(f"{entry.label} was admitted without a success of {job}")

    # -- what the bucket says ------------------------------------------------------------------

    def entries(self):
        found = {}
        for key, body in self._world.s3.objects.items():
            name = key.removeprefix("test/queue/").removesuffix(".json")
            is_entry = key.startswith("test/queue/") and not name.endswith(".kill")
            if is_entry and body != RUBBISH:
                found[name] = QueueEntry.model_validate_json(body)
        return found

    @staticmethod
    def name_of(machine):
        return entry_name(*machine.attempt)

    def holder_of(self, jobkey, attempt):
        """Who may run: an instance id, "" when it was revoked, None when the lock is free."""
        return self._holders.get((jobkey, attempt))

    def report_of(self, machine):
        """Read the report of a machine: None when it is not there, or not what was written."""
        body = self._world.s3.objects.get(contract.report_key("test", machine.arn))
        return None if body in (None, RUBBISH) else json.loads(body)

    def records(self):
        return [
            LaunchRecord.model_validate_json(body)
            for key, body in self._world.s3.objects.items()
            if key.endswith("/launch.json") and body != RUBBISH
        ]

    def attempts(self):
        """All attempts that were ever recorded, readable or not."""
        found = set()
        for key in self._world.s3.objects:
            if key.endswith("/launch.json"):
                _, _, jobkey, attempt, _ = key.split("/")
                found.add((jobkey, int(attempt.removeprefix("a"))))
        return found

    def check_quiescence(self):
        """Nothing lives, nothing is open, everything has an outcome."""
        for machine in self._world.ec2.own:
            if machine.is_alive:
                self.complain(f"{machine.instance_id} of attempt {machine.attempt[1]} still lives")
        left = [key for key in self._world.s3.objects if key.startswith("test/queue/")]
        if left:
            self.complain(f"still in the queue: {left}")
        for jobkey, attempt in sorted(self.attempts() - set(self.outcomes)):
            self.complain(f"no outcome of {entry_name(jobkey, attempt)}")
        for attempt, count in self.executions.items():
            if count != 1:
                self.complain(f"attempt {attempt[1]} was executed {count} times")
        keys = [key for key in self._world.s3.objects if key.startswith("test/history/")]
        finished = parse_history(key.rpartition("/")[2] for key in keys).finished
        if len(finished) != len(self.outcomes):
            self.complain(f"{len(finished)} history records of {len(self.outcomes)} outcomes")


def _names_out(state):
    return {name for name, found in state.entries.items() if found.stage is not Stage.WAITING}


def _do_the_same(record, other):
    """Whether a launch record and another one, or an entry, are of the same job in two runs."""
    job = other.job if isinstance(other, QueueEntry) else other.spec.job
    return record.spec.job == job and record.run_key != other.run_key


def _read_state(body):
    try:
        return QueueState() if body is None else QueueState.model_validate_json(body)
    except ValueError:
        return None
