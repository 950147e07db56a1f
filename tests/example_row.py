"""A row of the config table, as tests begin with it."""

SPEC = {
    "payer": "acme",
    "job": "claims",
    "command": ["python3", "claims.py"],
    "instance_types": ["m7i.large", "m6i.large"],
    "ami": "ami-0123456789abcdef0",
    "subnets": ["subnet-0a1", "subnet-0b2"],
    "security_groups": ["sg-0c3"],
    "instance_profile": "payer-machine",
    "region": "us-east-1",
}
