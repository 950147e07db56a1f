from pathlib import Path

from airflow_ephemeral_ec2 import payer_dags

globals().update(payer_dags(Path(__file__).with_name("payers.yaml")))
