"""What a wrong table is told: every error at once, each at its place."""

import json

import pytest

from airflow_ephemeral_ec2.config_table import check_table, load_table, load_table_text
from airflow_ephemeral_ec2.exceptions import TableError


def test_the_report_is_the_one_that_users_were_promised(complain):
    text = complain(
        ("depends_on: [eligibility]", "depends_on: [eligibilty]"),
        ("max_runtime: 30m", "max_runtime: 30"),
    )

    assert text == (
        'payers.yaml:14  jobs.claims.depends_on      "eligibilty": no such job; did you mean "eligibility"?\n'
        "payers.yaml:16  acme.claims.max_runtime     30: no unit; write 30m or 30s\n"
        "2 errors in 6 jobs; no AWS call made"
    )


def test_an_error_in_defaults_is_reported_once(complain):
    text = complain(("max_runtime: 1h", "max_runtime: soon"))

    assert text.startswith("payers.yaml:6   defaults.max_runtime")
    assert text.endswith("1 error in 6 jobs; no AWS call made")


ONE_ERROR = {
    "unknown key": ("  code: jobs/", "  cod: jobs/", 5, "defaults.cod", 'unknown key; did you mean "code"?'),
    "unknown section": ("limits:", "limit:", 10, "limit", 'unknown key; did you mean "limits"?'),
    "unknown limit": ("{vcpus: 96}", "{vcpu: 96}", 10, "limits.vcpu", 'did you mean "vcpus"?'),
    "setting at the top": ("limits:", "ami: x\nlimits:", 10, "ami", "not here; write it in defaults"),
    "setting in aws": ("{aws_conn_id", "{ami: x, aws_conn_id", 2, "aws.ami", "write it in defaults"),
    "schedule of a job": (
        "{priority: 900", "{schedule: '@daily', priority: 900",
        12, "jobs.member.schedule", "write it at the payer",
    ),
    "written twice": (
        "  code: jobs/", "  code: jobs/\n  code: jobs/",
        6, "defaults.code", "written twice, first in line 5",
    ),
    "payer written twice": ("  pea:  {", "  acme: {", 17, "payers.acme", "written twice, first in line 16"),
    "unknown dependency": (
        "[eligibility]}", "[member, eligibilty]}",
        14, "jobs.claims.depends_on", '"eligibilty": no such job; did you mean "eligibility"?',
    ),
    "repeated dependency": ("[eligibility]}", "[member, member]}", 14, "jobs.claims.depends_on", "twice"),
    "own dependency": (
        "[eligibility]}", "[claims]}", 14, "jobs.claims.depends_on", "cycle: claims -> claims",
    ),
    "cycle": (
        "priority: 900", "depends_on: [claims]",
        12, "jobs.member.depends_on", "cycle: member -> claims -> eligibility -> member",
    ),
    "disabled dependency": (
        "jobs: {claims", "jobs: {eligibility: {enabled: false}, claims",
        16, "acme.eligibility.enabled", "claims depends on it",
    ),
    "job of the payer misspelt": (
        "jobs: {claims", "jobs: {clams", 16, "acme.clams", 'no such job; did you mean "claims"?',
    ),
    "no unit": ("30m", "30", 16, "acme.claims.max_runtime", "30: no unit; write 30m or 30s"),
    "wrong unit": ("30m", "30min", 16, "acme.claims.max_runtime", "not a duration"),
    "endless": ("30m", "31d", 16, "acme.claims.max_runtime", '"31d": must be at most 30d'),
    "empty duration": ("30m", "", 16, "acme.claims.max_runtime", "empty: write a value"),
    "truth for a number": (
        "priority: 900", "priority: yes", 12, "jobs.member.priority", "yes: write a whole number",
    ),
    "too large": ("priority: 900", "priority: 90000", 12, "jobs.member.priority", "90000: must be at most 10000"),
    "enum": (
        "priority: 900", "capacity_type: spott",
        12, "jobs.member.capacity_type",
        '"spott": must be one of on-demand, spot, spot-then-on-demand; did you mean "spot"?',
    ),
    "upper case": (
        "priority: 900", "capacity_type: SPOT", 12, "jobs.member.capacity_type", 'did you mean "spot"?',
    ),
    "empty variable": ("priority: 900", "env: {A: }", 12, "jobs.member.env.A", 'write "" for no text'),
    "literal": (
        "priority: 900", "log_to_airflow: on_failur",
        12, "jobs.member.log_to_airflow", 'none, on_failure, all; did you mean "on_failure"?',
    ),
    "boolean": ("priority: 900", "enabled: maybe", 12, "jobs.member.enabled", "write true or false"),
    "instance type": (
        "[m7i.2xlarge]", "[m7i.lagre]",
        14, "jobs.claims.instance_types", 'did you mean "m7i.large"?',
    ),
    "empty list": ("[m7i.2xlarge]", "[]", 14, "jobs.claims.instance_types", "an empty list: needs at least one"),
    "text for a list": (
        "[python3, claims.py]", "python3 claims.py --fast",
        14, "jobs.claims.command", "write a list: [python3, claims.py, --fast]",
    ),
    "one type for a list": (
        "[m7i.2xlarge]", "m7i.2xlarge", 14, "jobs.claims.instance_types", "write a list: [m7i.2xlarge]",
    ),
    "number for a list": (
        "priority: 900", "retry_exit_codes: 75",
        12, "jobs.member.retry_exit_codes", "75: write a list: [75]",
    ),
    "number in a command": (
        "[python3, claims.py]", "[python3, claims.py, 007]", 14, "jobs.claims.command", 'write "7"',
    ),
    "blank program": ("[python3, claims.py]", '[""]', 14, "jobs.claims.command", "must be a program"),
    "number for text": ('"4711"', "0047", 2, "aws.tags.CostCenter", '0047: not text; write "0047"'),
    "mapping for text": ("code: jobs/", "code: {a: b}", 5, "defaults.code", "a mapping: write text"),
    "text for a mapping": ("{vcpus: 96}", "many", 10, "limits", "one value: write a mapping"),
    "list for a mapping": ('tags: {CostCenter: "4711"}', "tags: [a]", 2, "aws.tags", "a list: write a mapping"),
    "ami": ("ami: ssm:", "ami: ", 4, "defaults.ami", "write ami-... or ssm:/path"),
    "region": ("us-east-1", "Virginia", 2, "aws.region", '"Virginia": write a region, like us-east-1'),
    "subnet": ("subnet-0b2", "sn-0b2", 7, "defaults.subnets", '"sn-0b2": write subnet-...'),
    "role": ("acme-data", "acme data", 16, "acme.job_role", "write the name or ARN of a role"),
    "architecture": (
        "[m7i.2xlarge]", "[m7i.2xlarge, m7g.2xlarge]",
        14, "jobs.claims.instance_types",
        '"m7g.2xlarge" is arm64, the AMI of defaults.ami (line 4) is x86_64',
    ),
    "larger than the limit": (
        "[m7i.2xlarge]", "[m7i.large, m7i.48xlarge]",
        14, "jobs.claims.instance_types",
        '"m7i.48xlarge" has 192 vCPUs, limits.vcpus is 96 (line 10 of payers.yaml)',
    ),
    "larger than a job's limit": (
        "{vcpus: 96}", "{jobs: {claims: 4}}", 14, "jobs.claims.instance_types",
        '"m7i.2xlarge" has 8 vCPUs, limits.jobs.claims is 4 (line 10 of payers.yaml)',
    ),
    "larger than a capacity type's": (
        "{vcpus: 96}", "{on_demand: 4}", 14, "jobs.claims.instance_types", "limits.on_demand is 4",
    ),
    "limit of an unknown payer": (
        "{vcpus: 96}", "{payers: {acm: 8}}", 10, "limits.payers.acm",
        '"acm": no such payer; did you mean "acme"?',
    ),
    "limit of an unknown job": (
        "{vcpus: 96}", "{jobs: {claim: 8}}", 10, "limits.jobs.claim",
        '"claim": no such job; did you mean "claims"?',
    ),
    "reserved tag": ("{CostCenter", "{aws:cost", 2, "aws.tags.aws:cost", "are not for users"),
    "our tag": ("{CostCenter", "{Name", 2, "aws.tags.Name", "are not for users"),
    "tag character": ("{CostCenter", "{Cost*Center", 2, "aws.tags.Cost*Center", "use letters"),
    "long tag": ('"4711"', "a" * 257, 2, "aws.tags.CostCenter", "at most 256 characters"),
    "long tag key": ("{CostCenter", "{? " + "k" * 128 + "\n ", 3, "aws.tags." + "k" * 128, "at most 127"),
    "reserved variable": (
        "priority: 900", "env: {EPHEMERAL_JOB: x}", 12, "jobs.member.env.EPHEMERAL_JOB", "set by the machine",
    ),
    "variable name": ("priority: 900", "env: {A-B: x}", 12, "jobs.member.env.A-B", "use letters, digits and _"),
    "number in env": ("priority: 900", "env: {A: 1}", 12, "jobs.member.env.A", "not text; put it in quotes"),
    "exit code": (
        "priority: 900", "retry_exit_codes: [256]", 12, "jobs.member.retry_exit_codes", "256: must be at most 255",
    ),
    "exit code with two meanings": (
        "priority: 900", "retry_exit_codes: [99, 75]",
        12, "jobs.member.retry_exit_codes", "99: also in skip_exit_codes",
    ),
    "variable and secret": (
        "priority: 900", "env: {A: x}, secrets: {A: ssm:/a}", 12, "jobs.member.env.A", "also in secrets",
    ),
    "array": ("priority: 900", "array_size: 0", 12, "jobs.member.array_size", "0: must be at least 1"),
    "reserved setting": ("priority: 900", "container_image: x", 12, "jobs.member.container_image", "reserved"),
    "cron fields": ('"0 2 * * *"', '"0 2 * *"', 16, "acme.schedule", "4 fields; write five fields"),
    "cron range": ('"0 2 * * *"', '"0 25 * * *"', 16, "acme.schedule", "not a cron expression"),
    "cron preset": ('"0 2 * * *"', '"@dayly"', 16, "acme.schedule", 'did you mean "@daily"?'),
    "files of another form": (
        'schedule: "0 2 * * *"', "files: 's3://landing/*/x.csv', files_queue: 'https://sqs.us-east-1.amazonaws.com/123456789012/acme'",
        16, "acme.files", '"s3://landing/*/x.csv": write s3://bucket/folder/ or',
    ),
    "FIFO queue": (
        'schedule: "0 2 * * *"', "files: 's3://landing/acme/', files_queue: 'https://sqs.us-east-1.amazonaws.com/123456789012/acme.fifo'",
        16, "acme.files_queue", "write the URL of a standard queue",
    ),
    "files without a queue": (
        'schedule: "0 2 * * *"', "files: 's3://landing/acme/'", 16, "acme.files", "without files_queue; write both",
    ),
    "queue without files": (
        'schedule: "0 2 * * *"', "files_queue: 'https://sqs.us-east-1.amazonaws.com/123456789012/acme'",
        16, "acme.files_queue", "without files; write both",
    ),
    "files and a schedule": (
        'schedule: "0 2 * * *"', "schedule: '@daily', files: 's3://landing/acme/', files_queue: 'https://sqs.us-east-1.amazonaws.com/123456789012/acme'",
        16, "acme.files", "also a schedule",
    ),
    "queue in another region": (
        'schedule: "0 2 * * *"', "files: 's3://landing/acme/', files_queue: 'https://sqs.eu-west-1.amazonaws.com/123456789012/acme'",
        16, "acme.files_queue", "in eu-west-1, but region is us-east-1",
    ),
    "files of a job": (
        "{priority: 900", "{files: 's3://landing/acme/', priority: 900",
        12, "jobs.member.files", "write it at the payer",
    ),
    "no code folder": ("code: jobs/", "code: job/", 5, "defaults.code", 'no such folder beside payers.yaml; did you mean "jobs/"?'),
    "absolute code": ("code: jobs/", "code: /jobs", 5, "defaults.code", "a folder relative to the table"),
    "code is a file": ("code: jobs/", "code: payers.yaml", 5, "defaults.code", "a file; write the folder"),
    "payer's name": ("  pea:", "  p&a:", 17, "p&a", '"p&a": not a name of a payer'),
    "missing for every job": (
        "  instance_profile: payer-machine\n", "", 3, "defaults.instance_profile", "missing; write it in defaults",
    ),
    "missing for one job": (
        "instance_types: [m7i.2xlarge], ", "", 14, "jobs.claims.instance_types", "missing; write it here",
    ),
    "no version": ("version: 1\n", "", 1, "version", "missing; write version: 1"),
    "other version": ("version: 1\n", "version: 2\n", 1, "version", "2: not supported; write version: 1"),
    "version as truth": ("version: 1\n", "version: yes\n", 1, "version", "not supported"),
    "python tag": ("code: jobs/", "code: !!python/name:os.system jobs/", 5, "defaults.code", "is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_ERROR)
def test_one_error_is_told_once_at_its_place(name, write):
    old, new, line, column, message = ONE_ERROR[name]

    problems = check_table(write((old, new))).problems

    assert [(p.line, p.column) for p in problems] == [(line, column)]
    assert message in problems[0].message


def test_a_value_in_a_list_is_found_in_its_own_line(write):
    path = write(("depends_on: [eligibility]}", "depends_on:\n    [member,\n     x]}"))

    assert [p.line for p in check_table(path).problems] == [16]


def test_all_errors_are_told_at_once(write):
    spoilt = [(old, new) for old, new, *_ in (
        ONE_ERROR[n] for n in ("unknown limit", "missing for every job", "no unit", "enum", "instance type")
    )]  # fmt: skip

    with pytest.raises(TableError) as caught:
        load_table(write(*spoilt))

    assert [p.line for p in caught.value.problems] == [3, 9, 11, 13, 15]


def test_too_many_tags_are_counted_with_ours(complain):
    tags = ", ".join(f"t{n}: x" for n in range(43))

    assert "44 tags; at most 43 (50 per machine, 7 are ours)" in complain(
        ('CostCenter: "4711"', f"c: x, {tags}")
    )


def test_the_lock_file_knows_better_than_names(write, folder):
    facts = {"vcpus": 200, "memory_mib": 1, "architecture": "arm64"}
    (folder / "payers.lock.json").write_text(json.dumps({"instance_types": {"m7i.2xlarge": facts}}))

    messages = [p.message for p in check_table(write()).problems]

    assert any("200 vCPUs" in message for message in messages)
    assert any('"m7i.2xlarge" is arm64' in message for message in messages)


def test_a_spoilt_lock_file_is_named(complain, folder):
    (folder / "payers.lock.json").write_text('{"version": 1, "cod": {}}')

    assert "payers.lock.json" in complain()
    assert "push again" in complain()


SECRETS = {
    "a name": ("env: {DB_PASSWORD: hunter2}", "hunter2"),
    "a number under a name": ("env: {DB_PASSWORD: 12345678}", "12345678"),
    "an AWS key": ("env: {WHO: AKIAIOSFODNN7EXAMPLE}", "AKIA"),
    "a password in an address": ("env: {DB: 'postgres://me:hunter2@db/x'}", "hunter2"),
    "a secret in secrets": ("secrets: {DB_PASSWORD: hunter2}", "hunter2"),
    "an argument": ("pre_command: [fetch, 'https://me:hunter2@host/']", "hunter2"),
    "a command in one text": ("pre_command: fetch https://me:hunter2@host/", "hunter2"),
    "an unknown key": ("envv: {DB_PASSWORD: hunter2}", "hunter2"),
    "a list for env": ("env: [DB_PASSWORD=hunter2]", "hunter2"),
    "a wrong place": ("code: 'https://me:hunter2@host/'", "hunter2"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_refused_and_not_shown(name, complain):
    written, secret = SECRETS[name]

    text = complain(("priority: 900", written))

    assert "payers.yaml:12" in text
    assert secret not in text


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"[a]", 1, "a list: write a mapping"),
        (b"text", 1, "one value: write a mapping"),
        (b"version: 1\npayers: {a: [}\n", 2, "not YAML"),
        (b"version: 1\n\xff\n", 2, "not UTF-8"),
        (b"version: 1\na: \x07\n", 2, "control character"),
        (b"version: 1\n---\nversion: 1\n", 2, "not YAML"),
        (b"[" * 100_000, 1, "nested deeper"),
        (b"version: 1\npayers: {}\njobs: {}\n", 2, "empty: a table has at least one payer"),
        (b"version: 1\npayers: {a: {}}\njobs:\n", 3, "empty: a table has at least one job"),
        (b"version: 1\npayers: &a {x: *a}\n", 2, "unknown key"),
        (b"version: 1\npayers: &a {<<: *a}\n", 2, "merges itself"),
        (b"version: 1\n? [a]\n: b\n", 2, "a list as a key"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_a_line(content, line, message, folder):
    path = folder / "payers.yaml"
    path.write_bytes(content)

    problems = check_table(path).problems

    assert any(p.line == line and message in p.message for p in problems), problems


def test_a_missing_file_is_answered_with_the_nearest(write):
    path = write()

    (problem,) = check_table(path.with_name("payer.yaml")).problems
    assert problem.message == 'no such file; did you mean "payers.yaml"?'
    (problem,) = check_table(path.parent / "nowhere" / "payers.yaml").problems
    assert "does not exist" in problem.message


def test_only_tables_are_read(folder):
    for name, message in (("payers.txt", "must end in"), ("dir.yaml", "a folder")):
        path = folder / name
        path.mkdir()
        assert message in check_table(path).problems[0].message
    assert "load_table_text" in check_table("s3://bucket/payers.yaml").problems[0].message


def test_a_huge_file_is_refused(folder):
    path = folder / "payers.yaml"
    path.write_bytes(b"#" * (10 * 1024 * 1024 + 1))

    assert "larger than 10 MiB" in check_table(path).problems[0].message


def test_aliases_cannot_make_a_table_without_end(right_text):
    jobs = ", ".join(f"j{n}: *j" for n in range(200))
    payers = ", ".join(f"p{n}: *p" for n in range(200))
    text = f"version: 1\njobs: {{j: &j {{}}, {jobs}}}\npayers: {{p: &p {{}}, {payers}}}\n"

    with pytest.raises(TableError, match="at most 20,000"):
        load_table_text(text, "payers.yaml")


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(TableError, match="not UTF-8"):
        load_table_text("version: 1\na: \ud800", "payers.yaml")


def test_two_payers_may_not_share_a_queue(complain):
    setting = "files: 's3://landing/x/', files_queue: 'https://sqs.us-east-1.amazonaws.com/123456789012/x'"
    text = complain(('schedule: "0 2 * * *"', setting), ("  pea:  {", f"  pea:  {{{setting}, "))

    assert "payers.yaml:17  pea.files_queue     also the queue of acme" in text
