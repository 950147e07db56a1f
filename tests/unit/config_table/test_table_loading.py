"""What a right table becomes."""

import hashlib
import json
import pickle
from datetime import timedelta

import pytest

from airflow_ephemeral_ec2.config_table import check_table, load_table, load_table_text
from airflow_ephemeral_ec2.exceptions import Problem, TableError, UnknownJobError


def test_a_payer_gets_all_jobs_in_the_order_of_their_dependencies(write):
    shuffled = (
        ("depends_on: [member]", "depends_on: []"),
        ("priority: 900", "depends_on: [claims]"),
    )
    table = load_table(write(*shuffled))

    assert [spec.job for spec in table.jobs("pea")] == ["eligibility", "claims", "member"]
    assert table.payers == ("acme", "pea")


def test_the_nearest_place_wins(write):
    table = load_table(
        write(
            ("pea:  {", "pea: {priority: 7, jobs: {member: {priority: 8}}, "),
            ("  max_runtime: 1h", "  max_runtime: 1h\n  priority: 5"),
        )
    )

    found = {(s.payer, s.job): s.priority for s in table.specs}
    assert found["pea", "member"] == 8, "the payer's job before the payer"
    assert found["pea", "eligibility"] == 7, "the payer before the job"
    assert found["acme", "member"] == 900, "the job before defaults"
    assert found["acme", "eligibility"] == 5, "defaults before the setting's own default"
    assert table.find("acme", "claims").volume_gib == 20


def test_maps_merge_name_by_name_and_lists_are_replaced(write):
    table = load_table(
        write(
            (
                "  code: jobs/",
                "  code: jobs/\n  tags: {Team: data, Stage: all}\n  env: {A: '1', B: '1'}",
            ),
            ("max_runtime: 30m", "tags: {Stage: late}, env: {B: '2'}, subnets: [subnet-9]"),
        )
    )

    spec = table.find("acme", "claims")
    assert spec.tags == {"CostCenter": "4711", "Team": "data", "Stage": "late"}
    assert spec.env == {"A": "1", "B": "2"}
    assert spec.subnets == ("subnet-9",)


def test_defaults_win_over_aws(write):
    table = load_table(write(("  code: jobs/", "  region: eu-west-1\n  tags: {CostCenter: '1'}")))

    assert {spec.region for spec in table.specs} == {"eu-west-1"}
    assert {spec.tags["CostCenter"] for spec in table.specs} == {"1"}


def test_a_disabled_job_is_left_out(write):
    table = load_table(write(("max_runtime: 30m", "enabled: false")))

    assert [spec.job for spec in table.jobs("acme")] == ["member", "eligibility"]
    assert len(table.specs) == 5
    with pytest.raises(UnknownJobError, match=r"enabled: false, line 16"):
        table.find("acme", "claims")


def test_a_payer_without_any_enabled_job_is_left_out(write):
    table = load_table(write(("pea:  {", "pea: {enabled: false, ")))

    assert table.payers == ("acme",)
    with pytest.raises(UnknownJobError, match="no such payer: 'pea'"):
        table.jobs("pea")


def test_a_payer_may_have_a_job_of_its_own(write):
    table = load_table(
        write(
            ("jobs: {claims", "jobs: {audit: {command: [a], instance_types: [m7i.large]}, claims")
        )
    )

    assert [spec.job for spec in table.jobs("acme")][-1] == "audit"
    assert [spec.job for spec in table.jobs("pea")] == ["member", "eligibility", "claims"]


def test_an_unknown_name_is_answered_with_the_nearest(write):
    table = load_table(write())

    with pytest.raises(UnknownJobError, match="did you mean 'claims'"):
        table.find("acme", "clams")
    with pytest.raises(UnknownJobError, match="did you mean 'acme'"):
        table.find("acne", "claims")


def test_the_schedule_is_the_payers(write):
    table = load_table(write())

    assert table.schedule("acme") == "0 2 * * *"
    assert table.schedule("pea") is None


def test_the_version_of_a_table_is_the_hash_of_its_bytes(write):
    path = write()

    assert load_table(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lines_name_the_place_where_a_value_is_written(write):
    table = load_table(write())

    assert table.line_of("acme", "claims") == 16
    assert table.line_of("acme", "claims", "max_runtime") == 16
    assert table.line_of("pea", "claims", "max_runtime") == 6
    assert table.line_of("pea", "claims", "tags") == 2
    assert table.line_of("pea", "claims", "tags.CostCenter") == 2


def test_the_lock_file_beside_the_table_is_read(write, folder):
    (folder / "payers.lock.json").write_text(
        json.dumps({"version": 1, "code": {"jobs/": {"sha256": "a" * 64, "size_bytes": 3}}})
    )
    table = load_table(write())

    assert table.lock.code["jobs/"].size_bytes == 3
    assert table.lock_path == folder / "payers.lock.json"


def test_before_the_first_push_the_lock_file_is_empty(write):
    assert load_table(write()).lock.code == {}


def test_anchors_and_merge_keys_work(write):
    table = load_table(
        write(
            ("acme: {", "acme: &base {"),
            ("pea:  {job_role: pea-data}", "pea: {<<: *base, job_role: pea-data}"),
        )
    )

    assert table.schedule("pea") == "0 2 * * *"
    assert table.find("pea", "claims").max_runtime == timedelta(minutes=30).total_seconds()
    assert table.find("pea", "claims").job_role == "pea-data"


def test_a_table_from_elsewhere_is_read_from_its_bytes(right_text):
    table = load_table_text(right_text.encode(), "s3://bucket/payers.yaml")

    assert table.path == "s3://bucket/payers.yaml"
    assert len(table.specs) == 6


def test_a_check_of_another_part_sees_the_table_and_reports_at_its_lines(write):
    def refuse_claims(table):
        for spec in table.specs:
            if spec.job == "claims":
                yield table.problem(spec.payer, spec.job, "command", "too long for user data")

    path = write()
    with pytest.raises(TableError) as caught:
        load_table(path, extra_checks=[refuse_claims])

    expected = Problem(str(path), 14, "jobs.claims.command", "too long for user data")
    assert caught.value.problems == (expected,), "inherited by two payers, written once"


def test_a_table_survives_pickling(write):
    table = load_table(write())

    assert pickle.loads(pickle.dumps(table)).specs == table.specs


def test_the_users_own_example_is_right(write):
    found = check_table(write())

    assert found.problems == ()
    assert found.jobs == 6
