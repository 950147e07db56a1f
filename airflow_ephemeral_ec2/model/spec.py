"""What a user may ask for: one row of the config table, validated and frozen."""

import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import combinations
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from airflow_ephemeral_ec2.model.duration import compact_duration, parse_duration

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
TEXT = r"^[^\x00]*$"
WORD = r"^[!-~]+$"
FOLDER = r"^[A-Za-z0-9._][A-Za-z0-9._ /-]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
REFERENCE = r"^(secretsmanager|ssm):[!-~]+$"
INSTANCE_TYPE = (
    r"^[a-z][a-z0-9]*(-[a-z0-9]+)*"
    r"\.(nano|micro|small|medium|large|xlarge|[0-9]+xlarge|metal(-[0-9]+xl)?)$"
)
AMI = r"^(ami-[0-9a-z]+|ssm:/[A-Za-z0-9._/-]+)$"
SUBNET = r"^subnet-[0-9A-Za-z]+$"
SECURITY_GROUP = r"^sg-[0-9A-Za-z]+$"
REGION = r"^[a-z]+(-[a-z]+)+-[0-9]+$"
PROFILE = r"^(arn:[a-z-]+:iam::[0-9]{12}:instance-profile/[!-~]+|[A-Za-z0-9+=,.@_-]{1,128})$"
ROLE = r"^(arn:[a-z-]+:iam::[0-9]{12}:role/[!-~]+|[A-Za-z0-9+=,.@_-]{1,64})$"
FILES = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^*?\[/\x00-\x1f]+/)*[^/\x00-\x1f]*$"
QUEUE = r"^https?://[^/\s]+/[0-9]{12}/[A-Za-z0-9_-]{1,80}$"
TAG_KEY = r"^[\w +\-=.:/@]+$"
TAG_VALUE = r"^[\w +\-=.:/@]*$"

FORMS = {
    NAME: "use letters, digits, - and _, at most 40, a letter or digit first",
    TEXT: "no NUL characters",
    WORD: "write one word without blanks",
    FOLDER: "write a folder relative to the table, like jobs/",
    ENV_NAME: "use letters, digits and _, no digit first",
    REFERENCE: "write secretsmanager:NAME or ssm:NAME, the name of the secret",
    INSTANCE_TYPE: "write a family, a dot and a size, like m7i.large",
    AMI: "write ami-... or ssm:/path/of/a/parameter",
    SUBNET: "write subnet-...",
    SECURITY_GROUP: "write sg-...",
    REGION: "write a region, like us-east-1",
    PROFILE: "write the name or ARN of an instance profile",
    ROLE: "write the name or ARN of a role",
    FILES: "write s3://bucket/folder/ or s3://bucket/folder/*.csv, a pattern in the name only",
    QUEUE: "write the URL of a standard queue, like https://sqs.us-east-1.amazonaws.com/123456789012/acme-files",
    TAG_KEY: "use letters, digits, blanks and + - = . _ : / @",
    TAG_VALUE: "use letters, digits, blanks and + - = . _ : / @",
}
"""Pattern -> what a user must write, for error messages."""

RESERVED_ENV_PREFIX = "EPHEMERAL_"
RESERVED_TAG_PREFIXES = ("aws:", "ephemeral-ec2:")
LONGEST_LIFETIME_SECONDS = 3 * 2_592_000 + 300
"""Nothing that a row can say keeps a machine longer: three durations of at most 30 days."""
OWN_TAGS = 7
"""Name, environment, jobkey, attempt, payer, job, max-lifetime-seconds (``model/plan.py``)."""
MAX_TAGS = 50
"""Per resource (EC2 user guide, "Tag restrictions"), ours included."""


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        kind, message = "int_type", "Input should be a valid integer"
        raise PydanticCustomError(kind, message)
    return value


def _refuse_reserved_env(name: str) -> str:
    if name.startswith(RESERVED_ENV_PREFIX):
        kind = "form"
        raise PydanticCustomError(kind, "names that begin with EPHEMERAL_ are set by the machine")
    return name


def _refuse_reserved_tag(key: str) -> str:
    if key.lower().startswith(RESERVED_TAG_PREFIXES) or key == "Name":
        kind = "form"
        raise PydanticCustomError(kind, "Name, aws:... and ephemeral-ec2:... are not for users")
    return key


def _need_program(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].strip():
        kind = "form"
        raise PydanticCustomError(kind, "the first word must be a program")
    return command


Name = Annotated[str, StringConstraints(pattern=NAME)]
Word = Annotated[str, StringConstraints(pattern=WORD)]
NoBool = BeforeValidator(_refuse_bool)
"""Python takes True for 1; a table must not."""
Seconds = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(le=2_592_000),
    PlainSerializer(compact_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*([0-9]+[dhms])+\s*$", "examples": ["30m", "1h30m"]}
    ),
]
"""At most 30 days, so that no machine is for ever."""
ExitCode = Annotated[int, Field(ge=0, le=255), NoBool]
Command = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=TEXT)], ...], AfterValidator(_need_program)
]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME), AfterValidator(_refuse_reserved_env)]
TagKey = Annotated[
    str, StringConstraints(pattern=TAG_KEY, max_length=127), AfterValidator(_refuse_reserved_tag)
]


class CapacityType(StrEnum):
    """How the machine is bought."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    SPOT_THEN_ON_DEMAND = "spot-then-on-demand"


class Spec(BaseModel):
    """Frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobSpec(Spec):
    """One row of the config table: the job of one payer, defaults applied."""

    payer: Name
    """Whose data. Becomes the DAG, a tag and a bucket key: no PHI."""
    job: Name
    """What is done with it. Becomes the task id."""
    enabled: bool = True
    """False leaves the job out of the DAG; jobs that depend on it may not stay."""
    depends_on: tuple[Name, ...] = ()
    """Jobs of the same payer that must have succeeded for the same business date."""
    command: Annotated[Command, Field(min_length=1)]
    """The program and its arguments, as a list; no shell reads it."""
    pre_command: Command = ()
    """Runs before the command, as a list, to prepare the machine; its time counts as run time."""
    code: Annotated[str, StringConstraints(pattern=FOLDER)] | None = None
    """Folder beside the table that travels to the machine, uploaded by ``ephemeral-ec2 push``."""
    container_image: None = None
    """Reserved."""
    env: dict[EnvName, Annotated[str, StringConstraints(pattern=TEXT)]] = {}
    """Environment of the command. Readable in user data: secrets go into ``secrets``."""
    secrets: dict[EnvName, Annotated[str, StringConstraints(pattern=REFERENCE)]] = {}
    """Environment variables fetched on the machine: ``secretsmanager:NAME`` or ``ssm:NAME``."""
    instance_types: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=INSTANCE_TYPE)], ...], Field(min_length=1)
    ]
    """Acceptable instance types, best first."""
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    """``on-demand``, ``spot`` or ``spot-then-on-demand``."""
    ami: Annotated[str, StringConstraints(pattern=AMI)]
    """``ami-...`` or ``ssm:/path/of/a/parameter``, resolved once per attempt."""
    volume_gib: Annotated[int, Field(ge=8, le=16_384), NoBool] = 20
    """Size of the root volume in GiB: gp3, encrypted, deleted with the machine."""
    max_runtime: Seconds = 3_600
    """The command (with ``pre_command``) is stopped after this long."""
    boot_timeout: Seconds = 600
    """From launch until the command starts; after that the machine is given up."""
    max_wait: Seconds | None = None
    """Give up when not launched within this time; empty waits for ever."""
    stop_grace: Seconds = 20
    """From SIGTERM to SIGKILL when the command is stopped."""
    priority: Annotated[int, Field(ge=0, le=10_000), NoBool] = 500
    """Higher wins, across all payers."""
    backfill_order: Literal["below_today", "by_priority"] = "below_today"
    """Where a backfill of the job stands in the queue: behind all that is not one, or among it."""
    cross_run_order: bool = True
    """
    Start only when ``depends_on`` has a recorded success for the date, in whatever run, and not
    beside another run of the date that does the same, writes what this job reads, or reads what it
    writes.
    """
    in_order_by_date: bool = False
    """
    Start only when the business date before, as far as one was asked for, has succeeded or has
    skipped itself.
    """
    subnets: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=SUBNET)], ...], Field(min_length=1)
    ]
    """Subnets, best first; one per availability zone makes capacity errors rarer."""
    security_groups: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=SECURITY_GROUP)], ...], Field(min_length=1)
    ]
    """Security groups of the machine; it needs no inbound rule."""
    instance_profile: Annotated[str, StringConstraints(pattern=PROFILE)]
    """Name of the instance profile of the machine (not of the job: ``job_role``)."""
    job_role: Annotated[str, StringConstraints(pattern=ROLE)] | None = None
    """Role (name or ARN) whose credentials the command gets; empty: no AWS access."""
    kms_key: Word | None = None
    """KMS key of the machine's volumes; empty: the account's default EBS key."""
    aws_conn_id: Word = "aws_default"
    """Airflow connection that launches the machine."""
    region: Annotated[str, StringConstraints(pattern=REGION)]
    """AWS region."""
    success_exit_codes: Annotated[tuple[ExitCode, ...], Field(min_length=1)] = (0,)
    """Exit codes that mean success."""
    skip_exit_codes: tuple[ExitCode, ...] = (99,)
    """Exit codes that skip the task, as in BashOperator."""
    retry_exit_codes: tuple[ExitCode, ...] = (75,)
    """Exit codes worth another attempt (75 is EX_TEMPFAIL of sysexits.h)."""
    infra_retries: Annotated[int, Field(ge=0, le=20), NoBool] = 2
    """Further attempts when the machine was lost through no fault of the job."""
    job_retries: Annotated[int, Field(ge=0, le=20), NoBool] = 0
    """Further attempts when the job ended with one of ``retry_exit_codes``."""
    array_size: Annotated[int, Field(ge=1, le=1_000), NoBool] = 1
    """Machines that share the job, told apart by ``EPHEMERAL_ARRAY_INDEX``."""
    log_to_airflow: Literal["none", "on_failure", "all"] = "none"
    """When the job's output is copied into the task log; it may hold PHI."""
    log_limit_mib: Annotated[int, Field(ge=1, le=10_240), NoBool] = 64
    """Output beyond this many MiB is dropped and counted."""
    push_result: bool = False
    """Put the JSON file that the job leaves at ``EPHEMERAL_RESULT_PATH`` (4 KB) into XCom."""
    schedule: str | None = None
    """When the payer's DAG runs (a payer's setting): a cron expression, or ``asset:`` and the URI of
    an asset whose updates start it; ``asset:URI & URI`` waits for all, ``asset:URI | URI`` for any;
    empty: on request only."""
    files: Annotated[str, StringConstraints(pattern=FILES)] | None = None
    """Files that start the payer's DAG when they land (a payer's setting): ``s3://bucket/folder/*.csv``; docs/files.md."""
    files_queue: Annotated[str, StringConstraints(pattern=QUEUE)] | None = None
    """URL of the SQS queue that gets the events of these files; this payer's alone."""
    tags: dict[TagKey, Annotated[str, StringConstraints(pattern=TAG_VALUE, max_length=256)]] = {}
    """More tags for instance, volume and network interface."""

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> "JobSpec":
        for _, message in find_conflicts(self):
            kind = "conflict"
            raise PydanticCustomError(kind, "{message}", {"message": message})
        return self

    @property
    def retries(self) -> int:
        """Airflow's ``retries``: the sum of both budgets."""
        return self.infra_retries + self.job_retries

    @property
    def max_lifetime_seconds(self) -> int:
        """After this long the machine's own watchdog ends it, whatever happens."""
        return self.boot_timeout + self.max_runtime + self.stop_grace + 300


def find_conflicts(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Name settings that are right alone and wrong together: (setting, what is wrong)."""
    for first, second in combinations(
        ("success_exit_codes", "skip_exit_codes", "retry_exit_codes"), 2
    ):
        both = sorted(set(getattr(spec, first)) & set(getattr(spec, second)))
        if both:
            codes = ", ".join(str(code) for code in both)
            yield second, f"{codes}: also in {first}; an exit code has one meaning"
    for name in sorted(spec.env.keys() & spec.secrets.keys()):
        yield f"env.{name}", "also in secrets; write it once"
    yield from _find_file_conflicts(spec)
    if len(spec.tags) > MAX_TAGS - OWN_TAGS:
        most = f"{MAX_TAGS - OWN_TAGS} ({MAX_TAGS} per machine, {OWN_TAGS} are ours)"
        yield "tags", f"{len(spec.tags)} tags; at most {most}"


def _find_file_conflicts(spec: JobSpec) -> Iterator[tuple[str, str]]:
    if bool(spec.files) != bool(spec.files_queue):
        given, other = ("files", "files_queue") if spec.files else ("files_queue", "files")
        yield given, f"without {other}; write both"
    if spec.files and spec.schedule:
        yield "files", "also a schedule; a payer's DAG starts by one of them"
    host = re.match(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.", spec.files_queue or "")
    if host and host[1] != spec.region:
        yield "files_queue", f"in {host[1]}, but region is {spec.region}; the queue must be there"


Vcpus = Annotated[int, Field(ge=1), NoBool]


class Limits(Spec):
    """How much may run at the same time, in vCPUs, per account and region."""

    vcpus: Vcpus | None = None
    """vCPUs of all machines of this environment together; empty: EC2's own quota decides."""
    on_demand: Vcpus | None = None
    """vCPUs of all on-demand machines."""
    spot: Vcpus | None = None
    """vCPUs of all spot machines."""
    payers: dict[Name, Vcpus] = {}
    """vCPUs of all machines of one payer."""
    jobs: dict[Name, Vcpus] = {}
    """vCPUs of all machines of one job, whoever the payer is."""
    fill_gaps: bool = True
    """Whether a job may pass one that waits for room, if its longest lifetime ends before then."""


class InstanceFacts(Spec):
    """What EC2 says about an instance type; ``push`` writes it into the lock file."""

    vcpus: Annotated[int, Field(ge=1)]
    memory_mib: Annotated[int, Field(ge=1)]
    architecture: Literal["x86_64", "arm64"]


class ImageFacts(Spec):
    """What EC2 says about an AMI; ``push`` writes it into the lock file."""

    architecture: Literal["x86_64", "arm64"]
    root_device: str
    data_devices: tuple[str, ...] | None = None
    """Devices of its further EBS volumes; None: not known, an older ``push`` did not look."""
    image_id: str = ""
    """The AMI that was looked at; an SSM parameter may name another one by now."""


class CodeFacts(Spec):
    """One code folder as it was uploaded."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class LockFile(Spec):
    """``payers.lock.json``: what ``push`` found out, beside the table; DAGs read it."""

    version: Literal[1] = 1
    code: dict[str, CodeFacts] = {}
    """By the table's ``code`` value."""
    instance_types: dict[str, InstanceFacts] = {}
    images: dict[str, ImageFacts] = {}
    """By the table's ``ami`` value."""
