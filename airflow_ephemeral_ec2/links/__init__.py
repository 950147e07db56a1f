"""Links from the Airflow UI to AWS."""
