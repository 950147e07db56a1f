"""The console script ``ephemeral-ec2``: tables, plans, pushes and runs without an Airflow."""
