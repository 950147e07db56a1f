"""What Airflow must know about this package."""

from typing import Any

_PACKAGE = "airflow_ephemeral_ec2"
_NAME = "Ephemeral EC2"
_MODULES = {
    "hooks": ["ec2"],
    "operators": ["ec2", "assets", "reap"],
    "sensors": ["ec2", "files"],
    "triggers": ["ec2", "files", "job"],
}


def _option(
    description: str, kind: str, example: str | None, default: str | None
) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


def get_provider_info() -> dict[str, Any]:
    """Describe the provider, as ``airflow/provider_info.schema.json`` wants it."""
    return {
        "package-name": "airflow-provider-ephemeral-ec2",
        "name": _NAME,
        "description": "One disposable EC2 instance per job.",
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.aws.amazon.com/ec2/",
                "tags": ["aws"],
            }
        ],
        **{
            role: [
                {
                    "integration-name": _NAME,
                    "python-modules": [f"{_PACKAGE}.{role}.{name}" for name in modules],
                }
            ]
            for role, modules in _MODULES.items()
        },
        "extra-links": [
            f"{_PACKAGE}.links.ec2.EphemeralEC2InstanceLink",
            f"{_PACKAGE}.links.ec2.EphemeralEC2LogLink",
        ],
        "config": {
            "ephemeral_ec2": {
                "description": "Disposable EC2 instances (docs/operating.md).",
                "options": _options(),
            }
        },
    }


def _options() -> dict[str, Any]:
    return {
        "environment": _option(
            "Names this Airflow among all that share the bucket or the AWS account.",
            "string",
            "prod",
            None,
        ),
        "bucket": _option(
            "Bucket that holds launch records, queue, reports, outcomes and logs.",
            "string",
            "my-company-ephemeral-ec2",
            None,
        ),
        "region": _option("AWS region of the bucket.", "string", "us-east-1", None),
        "aws_conn_id": _option(
            "Airflow connection that reads and writes the bucket.",
            "string",
            None,
            "aws_default",
        ),
        "poll_interval": _option(
            "Seconds between two looks at EC2, 0.2 to 60.", "float", None, "4"
        ),
        "scheduler_role_arn": _option(
            "Role of EventBridge Scheduler that ends machines at their limit; "
            "empty: no schedules are made.",
            "string",
            "arn:aws:iam::123456789012:role/ephemeral-ec2-ttl",
            None,
        ),
        "scheduler_group": _option("Schedule group of these schedules.", "string", None, "default"),
    }
