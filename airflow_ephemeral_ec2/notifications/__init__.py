"""Alerts through any notifier of any Airflow provider."""
