"""Did the demo do what was promised? Judged without asking those who promised it.

Evidence is only: the local EC2's API log, the process table, and the counters that the jobs
themselves wrote. Nothing here imports the package or asks Airflow. ``find_violations`` is pure;
``checker_evidence.py`` reads.
"""

from collections import Counter
from dataclasses import dataclass, field

EXIT_FINDINGS = 10
NEVER_LAUNCHED = None
ORDER = ("member", "eligibility", "claims", "downstream")
"""Of the jobs of every payer; each must have ended before the next one starts."""

EXPECTED = {
    **{(payer, job): 0 for payer in ("acme", "bolt") for job in ORDER},
    ("umbra", "member"): 0,
    ("umbra", "eligibility"): 0,
    ("umbra", "claims"): 65,
    ("umbra", "downstream"): NEVER_LAUNCHED,
}
"""(payer, job) -> the exit status that it must have."""


@dataclass(frozen=True)
class Instance:
    """One instance, as the API log has it."""

    instance_id: str
    payer: str
    job: str
    launched: float
    """Unix time."""
    last_state: str

    def __str__(self):
        return f"{self.instance_id} ({self.payer or '?'}/{self.job or '?'})"


@dataclass(frozen=True)
class Count:
    """One counter that a job wrote: that a run of it began or ended."""

    payer: str
    job: str
    phase: str
    run: str
    at: float
    """Unix time, of the API log."""
    exit_code: int | None = None


@dataclass(frozen=True)
class Evidence:
    """All that the checker knows."""

    instances: tuple[Instance, ...] = ()
    """While everything was still up, when the last DAG run had ended."""
    counts: tuple[Count, ...] = ()
    processes: tuple[str, ...] = ()
    """Processes of instances, at the same moment."""
    processes_after: tuple[str, ...] = ()
    """Processes of the demo and of instances, after everything was stopped."""
    folders_after: tuple[str, ...] = ()
    expected: dict = field(default_factory=lambda: EXPECTED)


def find_violations(evidence):
    """Return every broken promise as a line; none when all were kept."""
    return [
        *_wrong_endings(evidence),
        *_wrong_counts(evidence),
        *_broken_order(evidence),
        *_left_over(evidence),
    ]


def _wrong_endings(evidence):
    for (payer, job), wanted in evidence.expected.items():
        name = f"{payer}/{job}"
        ends = _counts(evidence, payer, job, "end")
        if wanted is NEVER_LAUNCHED:
            if ends or _counts(evidence, payer, job, "start") or _launches(evidence, payer, job):
                yield f"exit: {name} ran and must never have been launched"
        elif not ends:
            yield f"exit: {name} has no exit status, expected {wanted}"
        else:
            for end in ends:
                if end.exit_code != wanted:
                    yield f"exit: {name} ended with {end.exit_code}, expected {wanted}"


def _wrong_counts(evidence):
    for (payer, job), wanted in evidence.expected.items():
        if wanted is NEVER_LAUNCHED:
            continue
        found = {
            "launched": len(_launches(evidence, payer, job)),
            "started": len(_counts(evidence, payer, job, "start")),
            "ended": len(_counts(evidence, payer, job, "end")),
        }
        for what, count in found.items():
            if count != 1:
                kind = "double" if count > 1 else "missing"
                yield f"{kind}: {payer}/{job} was {what} {count} times, expected once"
    known = set(evidence.expected)
    strange = Counter((i.payer, i.job) for i in evidence.instances if (i.payer, i.job) not in known)
    for (payer, job), count in strange.items():
        yield f"stranger: {count} instance(s) of {payer or '?'}/{job or '?'}, which nobody asked for"


def _broken_order(evidence):
    payers = dict.fromkeys(payer for payer, _ in evidence.expected)
    for payer in payers:
        for number, before in enumerate(ORDER):
            ends = [count.at for count in _counts(evidence, payer, before, "end")]
            for after in ORDER[number + 1 :]:
                for begun, what in _beginnings(evidence, payer, after):
                    if not ends or begun < max(ends):
                        yield f"order: {payer}/{after} {what} before {payer}/{before} had ended"


def _beginnings(evidence, payer, job):
    for instance in _launches(evidence, payer, job):
        yield instance.launched, f"was launched ({instance.instance_id})"
    for count in _counts(evidence, payer, job, "start"):
        yield count.at, "started"


def _left_over(evidence):
    for instance in evidence.instances:
        if instance.last_state != "terminated":
            yield f"orphan: {instance} is still {instance.last_state}"
    for process in evidence.processes:
        yield f"orphan: process of an instance: {process}"
    for process in evidence.processes_after:
        yield f"left over after the stop: process {process}"
    for folder in evidence.folders_after:
        yield f"left over after the stop: folder {folder}"


def _counts(evidence, payer, job, phase):
    wanted = (payer, job, phase)
    return [one for one in evidence.counts if (one.payer, one.job, one.phase) == wanted]


def _launches(evidence, payer, job):
    return [one for one in evidence.instances if (one.payer, one.job) == (payer, job)]
