"""Pure decisions: no clock, no network, no Airflow, no boto3."""
