"""The seeded bugs: each takes the handling behind one guard away, and names the tests that see it."""

# A bug is quoted as the code has it.

from dataclasses import dataclass


@dataclass(frozen=True)
class SeededBug:
    """One guard taken away."""

    name: str
    file: str
    """Below the package."""
    old: str
    new: str
    tests: tuple[str, ...]
    """At least one of them must turn red."""


SEEDED_BUGS = (
    SeededBug(
        "one client token for all placements",
        "model/identity.py",
        'f"{jobkey}|{attempt}|{placement}|{nonce}"',
        'f"{jobkey}|{attempt}|{nonce}"',
        ("tests/unit/model/test_plan.py", "tests/unit/hooks/test_launch_protocol.py"),
    ),
    SeededBug(
        "a new client token for each request",
        "model/launch_request.py",
        '"ClientToken": placement.client_token,',
        '"ClientToken": __import__("secrets").token_hex(16),',
        ("tests/unit/hooks/test_controller.py", "tests/unit/hooks/test_launch_protocol.py"),
    ),
    SeededBug(
        "no revoke before giving up",
        "hooks/watching.py",
        "is_free = self._store.revoke_start_lock(record, verdict.reason)",
        "is_free = True",
        ("tests/state_machine/test_found.py",),
    ),
    SeededBug(
        "no revoke by a kill",
        "hooks/attempts.py",
        "        store.revoke_start_lock(store.read_launch(jobkey, attempt), kill.reason)\n",
        "        pass\n",
        (
            "tests/unit/hooks/test_controller.py",
            "tests/unit/hooks/test_attempts.py",
            "tests/state_machine/test_found.py",
        ),
    ),
    SeededBug(
        "no revoke before the machine is ended for boot_timeout",
        "hooks/watching.py",
        "free = self._store.revoke_start_lock(record, due.reason)",
        "free = True",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "no replay of an ambiguous launch: the next placement",
        "hooks/aws_errors.py",
        "return Answer.CONFIG if isinstance(error, ParamValidationError) else Answer.AMBIGUOUS",
        "return Answer.CONFIG if isinstance(error, ParamValidationError) else Answer.CAPACITY",
        ("tests/unit/hooks/test_launch_protocol.py", "tests/unit/hooks/test_aws_errors.py"),
    ),
    SeededBug(
        "no replay of an ambiguous launch: given up",
        "hooks/launcher.py",
        "if answer in (Answer.THROTTLED, Answer.AMBIGUOUS, Answer.EXPIRED):",
        "if answer in (Answer.THROTTLED, Answer.EXPIRED):",
        ("tests/unit/hooks/test_launch_protocol.py",),
    ),
    SeededBug(
        "a throttled launch walks on",
        "hooks/launcher.py",
        "            if answer is not Answer.CAPACITY:",
        "            if answer not in (Answer.CAPACITY, Answer.THROTTLED):",
        ("tests/unit/hooks/test_launch_protocol.py",),
    ),
    SeededBug(
        "what was refused is asked again after a crash",
        "hooks/launcher.py",
        "progress.refused = self._store.read_refusals(record)",
        "progress.refused = {}",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "any machine that EC2 answers with is taken",
        "hooks/launcher.py",
        'if all(found in ("", asked) for found, asked in zip(given, wanted, strict=True)):',
        "if given != wanted or given:",
        ("tests/unit/hooks/test_launch_protocol.py",),
    ),
    SeededBug(
        "a dead token is launched again",
        "hooks/launcher.py",
        "        if answer in (Answer.TOKEN_DEAD, Answer.TOKEN_MISMATCH):",
        "        if answer is Answer.TOKEN_MISMATCH:",
        ("tests/unit/hooks/test_launch_protocol.py",),
    ),
    SeededBug(
        "the agent starts without the lock",
        "agent/supervisor.py",
        "        if not self._take_lock():",
        "        if not (self._take_lock() or True):",
        (
            "tests/integration/test_agent_faults.py::test_B7_a_machine_without_the_lock_does_not_run_the_job",
        ),
    ),
    SeededBug(
        "a 412 on the agent's own lock counts as lost",
        "agent/supervisor.py",
        "return bool(json.loads(self.store.get(key, self._patience())) == mine)",
        "return False",
        (
            "tests/integration/test_agent_faults.py::test_a_lost_answer_to_the_own_lock_counts_as_won",
        ),
    ),
    SeededBug(
        "the agent overwrites the lock",
        "agent/store.py",
        '"if-none-match": "*"',
        '"x-if-none-match": "*"',
        ("tests/unit/agent/test_agent_store.py",),
    ),
    SeededBug(
        "a revoked lock counts as free",
        "hooks/job_store.py",
        "        return lock is not None and lock.revoked is not None",
        "        return True",
        ("tests/unit/hooks/test_job_store.py",),
    ),
    SeededBug(
        "no nonce check in reports",
        "model/report.py",
        'named = (found["jobkey"], found["attempt"], found["nonce"], found["instance_id"])',
        'named = (found["jobkey"], found["attempt"], expected.nonce, found["instance_id"])',
        ("tests/unit/hooks/test_tampering.py", "tests/unit/model/test_outcome.py"),
    ),
    SeededBug(
        "no instance check in reports",
        "model/report.py",
        'found["nonce"], found["instance_id"])',
        'found["nonce"], expected.instance_id)',
        ("tests/unit/model/test_outcome.py", "tests/unit/hooks/test_tampering.py"),
    ),
    SeededBug(
        "a superseded machine speaks for the attempt",
        "hooks/watching.py",
        "        if holder is not None:\n            # Another",
        "        if False:\n            # Another",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "the ARN of the lock's holder is not kept",
        "hooks/endings.py",
        'return (self.lock.arn if self.lock else "") or None',
        "return None",
        ("tests/state_machine/test_found.py",),
    ),
    SeededBug(
        "success without a report",
        "model/outcome.py",
        "        return _judge_silence(observation, lock, kill)\n    if report.phase == contract.PHASE_JOB:",
        '        return Verdict(Outcome.SUCCEEDED, "quiet")\n    if report.phase == contract.PHASE_JOB:',
        ("tests/unit/model/test_outcome.py",),
    ),
    SeededBug(
        "success of a job that was told to stop",
        "model/outcome.py",
        " and not (report.timed_out or report.interrupted):",
        ":",
        ("tests/unit/model/test_outcome.py",),
    ),
    SeededBug(
        "an outcome while the machine lives",
        "model/outcome.py",
        "    if not observation.is_dead:\n        return None\n",
        "",
        ("tests/unit/model/test_outcome.py",),
    ),
    SeededBug(
        "shutting down counts as dead",
        "model/outcome.py",
        'return self.state in ("terminated", "gone")',
        'return self.state in ("shutting-down", "terminated", "gone")',
        ("tests/unit/model/test_outcome.py", "tests/unit/hooks/test_controller.py"),
    ),
    SeededBug(
        "gone after the first look without it",
        "hooks/watching.py",
        "if is_old and memory.misses >= GONE_AFTER_MISSES:",
        "if memory.misses:",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "the entry is closed before the outcome is written",
        "hooks/endings.py",
        "    store.write_outcome(outcome)\n    store.close_entry(entry_name(record.jobkey, record.attempt))",
        "    store.close_entry(entry_name(record.jobkey, record.attempt))\n    store.write_outcome(outcome)",
        ("tests/state_machine/test_found.py",),
    ),
    SeededBug(
        "an outcome is overwritten",
        "hooks/job_store.py",
        "            winner = self.read_outcome(record.jobkey, record.attempt) or record",
        "            winner = record",
        ("tests/unit/hooks/test_job_store.py",),
    ),
    SeededBug(
        "no history after a crash of its writer",
        "hooks/open_attempts.py",
        "            self._store.write_history(outcome)\n",
        "",
        ("tests/state_machine/test_found.py",),
    ),
    SeededBug(
        "the lease is ignored",
        "hooks/queue_ledger.py",
        "            if now < lease.expires_at:",
        "            if now < lease.expires_at - LEASE_SECONDS:",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "the queue state is overwritten",
        "hooks/job_store.py",
        'condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}',
        "condition: dict[str, str] = {}",
        ("tests/unit/hooks/test_job_store.py",),
    ),
    SeededBug(
        "attempt n+1 is launched before n is gone",
        "hooks/controller.py",
        "            if not self._is_over(entry.jobkey, entry.supersedes):",
        "            if False:",
        ("tests/unit/hooks/test_controller.py",),
    ),
    SeededBug(
        "epoch ignored",
        "model/identity.py",
        "        if past.epoch == epoch:\n            return AttemptChoice(Step.ADOPT",
        "        if past.epoch:\n            return AttemptChoice(Step.ADOPT",
        ("tests/unit/model/test_identity.py",),
    ),
    SeededBug(
        "a success is run again",
        "model/identity.py",
        "    if past.epoch == epoch and past.outcome in done:",
        "    if False:",
        ("tests/unit/model/test_identity.py",),
    ),
    SeededBug(
        "one sighting is enough for the reaper",
        "model/reap.py",
        "is_sure = seen is not None and now - seen >= patience[finding.reason]",
        "is_sure = True",
        ("tests/unit/model/test_reap.py",),
    ),
    SeededBug(
        "two sightings without a time between them",
        "model/reap.py",
        "is_sure = seen is not None and now - seen >= patience[finding.reason]",
        "is_sure = seen is not None",
        ("tests/unit/model/test_reap.py",),
    ),
    SeededBug(
        "the reaper reaps other environments",
        "hooks/reaper_fleet.py",
        "return _tag(tags, TAG_ENVIRONMENT) == self.environment",
        "return True",
        ("tests/state_machine/test_found.py",),
    ),
    SeededBug(
        "a false signal kills",
        "triggers/task_state.py",
        'return state is not None and state != "deferred"',
        "return True",
        ("tests/unit/triggers",),
    ),
    SeededBug(
        "a lost queue state is taken for an empty one",
        "hooks/job_store.py",
        "return QueueState(is_rebuilt=True), found[1]",
        "return QueueState(), found[1]",
        ("tests/unit/hooks/test_tampering.py",),
    ),
    SeededBug(
        "the order of admission is not strict",
        "model/admission.py",
        "        elif head is not None:",
        "        elif False:",
        ("tests/unit/model/test_admission.py",),
    ),
    SeededBug(
        "botocore repeats launches by itself",
        "hooks/clients.py",
        '"total_max_attempts": 1',
        '"total_max_attempts": 4',
        ("tests/unit/hooks/test_clients.py",),
    ),
)
