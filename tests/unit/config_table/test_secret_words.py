"""What looks like a secret, and what does not."""

import base64
import random

import pytest

from airflow_ephemeral_ec2.config_table import explain_secret

RANDOM = base64.b64encode(random.Random(7).randbytes(30)).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "x"),
        ("dbPassword", "x"),
        ("PASSWORD", 1234),
        ("CLIENT_SECRET", "x"),
        ("API_KEY", "x"),
        ("STRIPE_APIKEY", "x"),
        ("PRIVATE_KEY", "x"),
        ("GITHUB_TOKEN", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("DB_PWD", "x"),
        ("A", "AKIAIOSFODNN7EXAMPLE"),
        ("A", "-----BEGIN RSA PRIVATE KEY-----"),
        ("A", "postgresql://me:pw@db:5432/x"),
        ("A", "ghp_" + "a1B2" * 9),
        ("A", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x"),
        ("A", RANDOM),
    ],
)
def test_secrets_are_seen(name, value):
    assert "secrets:" in explain_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEVEL", "info"),
        ("DB_PASSWORD", ""),
        ("PASSWORD_FILE", "/run/x"),
        ("SECRET_NAME", "prod/db"),
        ("SECRET_ARN", "arn:aws:secretsmanager:us-east-1:123456789012:secret:x"),
        ("TOKEN_URL", "https://login.example.com/token"),
        ("MAX_TOKENS", "4096"),
        ("TOKENIZER", "bpe"),
        ("PWD", "/work"),
        ("MONKEY", "x"),
        ("COMMIT", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("RUN", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
        ("PLACE", "s3://bucket/incoming/acme/2026-03-01/claims.x12"),
        ("CLASS", "com/example/payers/ClaimsPipeline2026Factory"),
        ("AMI", "ami-amazon-linux-latest-al2023-ami-kernel-default-x86_64"),
        ("URL", "https://host:8443/path?a=b@c"),
    ],
)
def test_ordinary_values_pass(name, value):
    assert explain_secret(name, value) is None


def test_the_value_is_never_shown():
    assert "hunter2" not in explain_secret("DB_PASSWORD", "hunter2")
