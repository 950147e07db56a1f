"""One disposable EC2 instance per Airflow job: launched for it, reporting for it, gone with it.

This module imports nothing: the agent carries parts of the package to the instance.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "payer_dags":
        from airflow_ephemeral_ec2.dag_factory import payer_dags  # noqa: PLC0415 - Airflow, on demand

        return payer_dags
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
