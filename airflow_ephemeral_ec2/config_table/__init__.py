"""
The config table: text that people write -> frozen job specs, or every error at once.

YAML and CSV become the same layers of cells, which are validated where they are written, merged
into rows, and checked against each other. Nothing here calls AWS.
"""

from airflow_ephemeral_ec2.config_table.cache import load_cached_table
from airflow_ephemeral_ec2.config_table.load import (
    ExtraCheck,
    TableCheck,
    check_table,
    check_table_text,
    load_table,
    load_table_text,
    name_companion,
)
from airflow_ephemeral_ec2.config_table.report import format_problems
from airflow_ephemeral_ec2.config_table.secret_words import explain_secret
from airflow_ephemeral_ec2.config_table.table import ConfigTable, name_lock_path

__all__ = [
    "ConfigTable",
    "ExtraCheck",
    "TableCheck",
    "check_table",
    "check_table_text",
    "explain_secret",
    "format_problems",
    "load_cached_table",
    "load_table",
    "load_table_text",
    "name_companion",
    "name_lock_path",
]
