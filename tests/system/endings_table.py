"""The small table of the end-to-end tests: one job for each way to end."""

TABLE = """\
version: 1
aws: {aws_conn_id: aws_default, region: us-east-1, tags: {CostCenter: "4711"}}
limits: {vcpus: 64}
defaults:
  ami: ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  instance_types: [m7i.large]
  max_runtime: 5m
  stop_grace: 1s
  infra_retries: 0
  job_retries: 0
  subnets: [subnet-0a1, subnet-0b2]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
jobs:
  good: {command: [python3, -c, "print('name of a patient')"]}
  bad: {command: [python3, -c, "raise SystemExit(65)"]}
  skip: {command: [python3, -c, "raise SystemExit(99)"]}
  missing: {command: [no-such-program]}
  slow: {command: [sleep, "200"], max_runtime: 2s}
  no-machine: {command: ["true"], instance_types: [c7i.large]}
  wrong-profile: {command: ["true"], instance_profile: nobody}
  tampered: {command: ["true"], code: code/}
  killed: {command: [sleep, "200"], priority: 900}
payers:
  tess: {}
"""

NEW_PAYER = "  nova: {enabled: true}\n"

DAG_FILE = """\
from pathlib import Path

from airflow_ephemeral_ec2 import payer_dags

# Each job is one way to end: there is no success of the whole that an asset could tell of.
globals().update(payer_dags(Path(__file__).with_name("endings.yaml"), assets=None))
"""


def lay_out(dags):
    """Write table, DAG file and the code of one job into an existing DAGs folder."""
    (dags / "endings.yaml").write_text(TABLE, encoding="utf-8")
    (dags / "endings.py").write_text(DAG_FILE, encoding="utf-8")
    (dags / "code").mkdir()
    (dags / "code" / "job.py").write_text("print('hello')\n", encoding="utf-8")
    return dags / "endings.yaml"
