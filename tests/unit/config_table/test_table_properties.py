"""Laws of the loader, over generated tables and texts."""

import contextlib
import string

import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.config_table import check_table_text, explain_secret, load_table_text
from airflow_ephemeral_ec2.config_table.cells import PAYER_SETTINGS
from airflow_ephemeral_ec2.exceptions import TableError
from airflow_ephemeral_ec2.model.spec import CapacityType, JobSpec

names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
variables = st.text(string.ascii_uppercase, min_size=1, max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
seconds = st.integers(1, 2_592_000)
codes = st.lists(st.integers(0, 255), min_size=3, max_size=6, unique=True)


@st.composite
def specs(draw, job: str, needs: list[str]) -> JobSpec:
    meanings = draw(codes)
    durations = {
        name: f"{draw(seconds)}s"
        for name in ("max_runtime", "boot_timeout", "max_wait", "stop_grace")
    }
    return JobSpec(
        payer="acme",
        job=job,
        depends_on=draw(st.lists(st.sampled_from(needs), unique=True)) if needs else [],
        command=["run", *draw(st.lists(texts, max_size=3))],
        env=draw(st.dictionaries(variables, texts, max_size=3)),
        secrets=draw(
            st.dictionaries(variables.map("S_{}".format), names.map("ssm:/{}".format), max_size=2)
        ),
        instance_types=draw(st.lists(st.sampled_from(["m7i.large", "c7i.16xlarge"]), min_size=1)),
        capacity_type=draw(st.sampled_from(CapacityType)),
        ami="ami-1",
        volume_gib=draw(st.integers(8, 16_384)),
        priority=draw(st.integers(0, 10_000)),
        subnets=["subnet-1"],
        security_groups=["sg-1"],
        instance_profile="machine",
        job_role=draw(st.none() | names),
        region="us-east-1",
        success_exit_codes=meanings[:1],
        skip_exit_codes=meanings[1:2],
        retry_exit_codes=meanings[2:],
        push_result=draw(st.booleans()),
        schedule="@daily",
        tags=draw(st.dictionaries(names, names, max_size=3)),
        **durations,
    )


@st.composite
def tables(draw) -> list[JobSpec]:
    jobs = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return [draw(specs(job, jobs[:index])) for index, job in enumerate(jobs)]


def write_table(rows: list[JobSpec]) -> str:
    jobs = {}
    for spec in rows:
        settings = spec.model_dump(mode="json", exclude={"payer", "job", *PAYER_SETTINGS})
        jobs[spec.job] = settings
    payers = {"acme": {"schedule": "@daily", "jobs": jobs}}
    return yaml.safe_dump({"version": 1, "payers": payers}, sort_keys=False)


def has_secret(rows: list[JobSpec]) -> bool:
    return any(explain_secret(name, value) for spec in rows for name, value in spec.env.items())


@given(tables())
def test_specs_written_as_yaml_are_read_as_the_same_specs(rows):
    assume(not has_secret(rows) and all("Name" not in spec.tags for spec in rows))

    assert load_table_text(write_table(rows), "t.yaml").specs == tuple(rows)


TABLE = {
    "version": 1,
    "aws": {"region": "us-east-1"},
    "limits": {"vcpus": 96},
    "defaults": {"ami": "ami-1", "subnets": ["subnet-1"], "security_groups": ["sg-1"]},
    "jobs": {"member": {"instance_types": ["m7i.large"], "command": ["x"], "max_runtime": "1h"}},
    "payers": {"acme": {"instance_profile": "machine", "jobs": {"member": {"priority": 7}}}},
}
PLACES = [
    (),
    ("aws",),
    ("limits",),
    ("defaults",),
    ("jobs", "member"),
    ("payers", "acme"),
    ("payers", "acme", "jobs", "member"),
]


@given(st.sampled_from(PLACES), st.data())
def test_one_wrong_key_gives_a_problem_that_names_it(place, data):
    table = yaml.safe_load(yaml.safe_dump(TABLE))
    inner = table
    for step in place:
        inner = inner[step]
    key = data.draw(st.sampled_from(sorted(inner)))
    wrong = key + data.draw(st.text(string.ascii_lowercase, min_size=1, max_size=3))
    assume(wrong not in ("jobs", "payers"))
    inner[wrong] = inner.pop(key)

    problems = check_table_text(yaml.safe_dump(table), "t.yaml").problems

    assert any(wrong in problem.column for problem in problems)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
words = st.sampled_from(
    ["version", "aws", "defaults", "limits", "jobs", "payers", "env", "tags", "secrets", "vcpus", "region",
     "command", "depends_on", "max_runtime", "instance_types", "schedule", "ami", "code", "enabled", "a", "<<"]
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5)
)


@given(values)
def test_a_strange_table_raises_nothing_but_a_table_error(value):
    text = yaml.safe_dump({"version": 1, "payers": {"a": {}}, "jobs": {"a": {}}, "x": value} | (
        value if isinstance(value, dict) else {}
    ))  # fmt: skip

    with contextlib.suppress(TableError):
        load_table_text(text, "t.yaml")


@given(st.text("{}[]:,-&*!|>'\"%@`?#\n\t abv1.~<", max_size=60) | st.binary(max_size=40))
def test_no_text_raises_anything_but_a_table_error(text):
    for name in ("t.yaml", "t.csv"):
        with contextlib.suppress(TableError):
            load_table_text(text, name)
