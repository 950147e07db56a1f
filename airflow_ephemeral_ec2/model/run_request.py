"""What a person asks of one run: some jobs only, other machines, another priority, a dry run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from airflow_ephemeral_ec2.exceptions import ConfigurationError, nearest
from airflow_ephemeral_ec2.model.spec import FORMS, INSTANCE_TYPE, JobSpec

FIELDS = ("jobs", "instance_types", "priority", "ignore_order", "reason", "dry_run")
"""Parameters of a run that are read here; ``business_date`` is read with the other dates."""
ALL_FIELDS = ("business_date", *FIELDS)
PRIORITY_LIMIT = 10_000
REASON_LIMIT = 200
"""Characters; a reason is kept in the bucket and shown in logs."""


@dataclass(frozen=True)
class RunRequest:
    """The trigger form of one run, checked."""

    jobs: tuple[str, ...] = ()
    """Jobs to run; empty: all."""
    instance_types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Job -> instance types instead of the row's, best first."""
    priority: int | None = None
    """Instead of the row's, for all jobs of the run."""
    ignore_order: bool = False
    """Start although what a job depends on has no recorded success."""
    reason: str = ""
    dry_run: bool = False

    def wants(self, job: str) -> bool:
        return not self.jobs or job in self.jobs

    def apply(self, spec: JobSpec) -> JobSpec:
        """Replace what the run overrides of a row."""
        changes: dict[str, object] = {}
        if spec.job in self.instance_types:
            changes["instance_types"] = self.instance_types[spec.job]
        if self.priority is not None:
            changes["priority"] = self.priority
        return spec.model_copy(update=changes)

    @property
    def priority_reason(self) -> str:
        """Why the priority is not the table's; empty: it is."""
        return self.reason if self.priority is not None else ""

    @property
    def order_override(self) -> str:
        """Why order is not waited for; empty: it is."""
        return self.reason if self.ignore_order else ""


def has_form(params: Mapping[str, object]) -> bool:
    """Say whether a run has the trigger form: a DAG of one's own has at most some of its names."""
    return all(name in params for name in ALL_FIELDS)


def parse_run_request(params: Mapping[str, object], jobs: Sequence[str]) -> RunRequest:
    """
    Read and check the parameters of a run.

    :param params: as Airflow gives them to a task; names that are not ours are left alone
    :param jobs: the payer's jobs
    :raises ConfigurationError: names the parameter, what was found and what is allowed
    """
    for name in params.keys() - set(ALL_FIELDS):
        near = nearest(name, ALL_FIELDS)
        if near:
            _refuse(name, f"no such parameter; did you mean {near!r}?")
    request = RunRequest(
        jobs=_read_jobs(params.get("jobs"), jobs),
        instance_types=_read_instance_types(params.get("instance_types"), jobs),
        priority=_read_priority(params.get("priority")),
        ignore_order=_read_flag("ignore_order", params.get("ignore_order")),
        reason=_read_reason(params.get("reason")),
        dry_run=_read_flag("dry_run", params.get("dry_run")),
    )
    _check_together(request)
    return request


def find_deciding_jobs(
    job: str, depends_on: Mapping[str, Sequence[str]], wants: Callable[[str], bool]
) -> tuple[str, ...]:
    """
    Name the nearest jobs before this one that the run includes.

    A job that the run leaves out says nothing; those before it do.
    """
    found: dict[str, None] = {}
    waiting = list(depends_on.get(job, ()))
    seen: set[str] = set()
    while waiting:
        before = waiting.pop(0)
        if before in seen:
            continue
        seen.add(before)
        if wants(before):
            found[before] = None
        else:
            waiting += depends_on.get(before, ())
    return tuple(found)


def is_skipped(states: Sequence[str]) -> bool:
    """Say whether a task was skipped; a mapped one only when all its parts were."""
    return bool(states) and all(state == "skipped" for state in states)


def _refuse(name: str, message: str) -> NoReturn:
    msg = f"parameter {name}: {message}"
    raise ConfigurationError(msg)


def _check_job(name: str, job: object, known: Sequence[str]) -> str:
    if not isinstance(job, str) or job not in known:
        near = nearest(str(job), tuple(known))
        hint = f"; did you mean {near!r}?" if near else ""
        _refuse(name, f"{job!r}: the payer has no such job{hint} Known: {', '.join(known)}.")
    return job


def _read_jobs(value: object, known: Sequence[str]) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        _refuse("jobs", f'{value!r}: not a list; write it like ["claims"], empty for all jobs')
    return tuple(dict.fromkeys(_check_job("jobs", job, known) for job in value))


def _read_instance_types(value: object, known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        example = '{"claims": "m7i.4xlarge"}'
        _refuse("instance_types", f"{value!r}: not a map; write it like {example}")
    return {
        _check_job("instance_types", job, known): _read_types(job, types)
        for job, types in value.items()
    }


def _read_types(job: object, value: object) -> tuple[str, ...]:
    types = value if isinstance(value, list | tuple) else [value]
    if not types:
        _refuse("instance_types", f"{job}: empty; name at least one instance type")
    for one in types:
        if not isinstance(one, str) or not re.fullmatch(INSTANCE_TYPE, one):
            _refuse(
                "instance_types",
                f"{job}: {one!r} is not an instance type; {FORMS[INSTANCE_TYPE]}",
            )
    return tuple(dict.fromkeys(types))


def _read_priority(value: object) -> int | None:
    if value is None:
        return None
    allowed = f"write a whole number, 0 to {PRIORITY_LIMIT:,}"
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse("priority", f"{value!r}: {allowed}")
    if not 0 <= value <= PRIORITY_LIMIT:
        _refuse("priority", f"{value:,}: {allowed}")
    return value


def _read_flag(name: str, value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        _refuse(name, f"{value!r}: write true or false")
    return value


def _read_reason(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse("reason", f"{value!r}: write one line of text")
    text = value.strip()
    if len(text) > REASON_LIMIT:
        _refuse("reason", f"{len(text)} characters; at most {REASON_LIMIT}")
    if not text.isprintable():
        _refuse("reason", "line breaks or control characters; write one line of text")
    return text


def _check_together(request: RunRequest) -> None:
    left_out = [job for job in request.instance_types if not request.wants(job)]
    if left_out:
        _refuse(
            "instance_types",
            f"{left_out[0]!r} is not among jobs ({', '.join(request.jobs)}): "
            "add it there or leave it out here",
        )
    if not request.reason:
        for name, is_given in (
            ("priority", request.priority is not None),
            ("ignore_order", request.ignore_order),
        ):
            if is_given:
                _refuse(name, "needs a reason: fill in the parameter reason")
    elif request.priority is None and not request.ignore_order and not request.instance_types:
        _refuse("reason", "nothing to justify: give a priority, instance_types or ignore_order")
