"""One disposable EC2 instance per Airflow job: launched for it, reporting for it, gone with it.

Importing it imports nothing else: the agent carries parts of the package to the instance.
"""

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "payer_dags":
        # On demand and by name: only DAG files want it, and it brings Airflow with it.
        return import_module("airflow_ephemeral_ec2.dag_factory").payer_dags
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
