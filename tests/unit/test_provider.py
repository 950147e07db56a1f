"""What Airflow reads about the package, and what a reader may rely on."""

import importlib
import json
import pickle
from importlib.metadata import entry_points
from importlib.resources import files

import jsonschema
import pytest

from airflow_ephemeral_ec2 import exceptions
from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, Problem, SettingsError
from airflow_ephemeral_ec2.get_provider_info import get_provider_info
from airflow_ephemeral_ec2.settings import Settings, read_settings

EXAMPLES = {
    "AccessError": ("read x", "denied.", "Grant it."),
    "AwsError": ("read x", "denied."),
    "AwsUnavailableError": ("read x", "timeout."),
    "BucketError": ("read x", "gone.", "Create it."),
    "CodeMissingError": ("jobs/", "payers.yaml", "is gone"),
    "ConfigurationError": ("wrong",),
    "EphemeralEC2Error": ("wrong",),
    "JobEndedError": ("failed", "job_failed"),
    "RequestRefusedError": ("write x", "AWS says MalformedXML: no"),
    "SettingsError": (("bucket is missing",),),
    "TableError": ((Problem("t.yaml", 8, "a.b", "x"), Problem("t.yaml", 0, "", "y")),),
    "UnknownJobError": ("job", "claim", ("claims",), "t.yaml"),
    "UserDataTooLargeError": ("acme/claims", 20_000, 16_384),
}


EXAMPLES |= {"TamperedObjectError": ("s3://b/k", "truncated JSON.")}
ENDED = {kind.__name__: (f"{ends}!", ends) for ends, kind in exceptions.ending_errors().items()}
GROUPS = ("JobError", "InfrastructureError", "EndedFromOutsideError", "EvidenceError")
EXAMPLES |= ENDED | dict.fromkeys(GROUPS, ("failed", "unknown"))


def _all_errors():
    return sorted(
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, EphemeralEC2Error)
    )


@pytest.mark.parametrize("name", _all_errors())
def test_every_error_is_in_the_tree_and_survives_pickling(name):
    error = getattr(exceptions, name)(*EXAMPLES[name])

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == str(error) != ""
    assert again.retryable == error.retryable
    assert name in exceptions.__doc__


def test_the_provider_names_modules_and_links_that_exist():
    info = get_provider_info()

    for role in ("hooks", "operators", "sensors", "triggers"):
        for module in info[role][0]["python-modules"]:
            importlib.import_module(module)
    for path in info["extra-links"]:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_the_provider_info_is_as_airflow_wants_it():
    schema = files("airflow").joinpath("provider_info.schema.json").read_text()

    jsonschema.validate(get_provider_info(), json.loads(schema))


def test_airflow_finds_the_provider():
    [entry] = [
        e
        for e in entry_points(group="apache_airflow_provider")
        if e.value.startswith("airflow_ephemeral_ec2")
    ]

    assert entry.load()()["package-name"] == "airflow-provider-ephemeral-ec2"


def test_every_setting_that_is_read_is_declared():
    asked = []

    def get(option):
        asked.append(option)
        return {"environment": "e", "bucket": "b", "region": "r"}.get(option)

    settings = read_settings(get)

    assert settings == Settings("e", "b", "r", "aws_default", 4.0)
    assert set(asked) == set(get_provider_info()["config"]["ephemeral_ec2"]["options"])


def test_wrong_settings_are_named_all_at_once():
    values = {"environment": "Not Good", "region": "", "poll_interval": "fast"}

    with pytest.raises(SettingsError) as error:
        read_settings(values.get)

    text = str(error.value)
    assert "environment 'Not Good': allowed are" in text
    assert "bucket is missing (or set AIRFLOW__EPHEMERAL_EC2__BUCKET)" in text
    assert "region is missing" in text
    assert "poll_interval 'fast': seconds from 0.2 to 60" in text
