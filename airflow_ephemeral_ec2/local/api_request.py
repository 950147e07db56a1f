"""One AWS API request as the gateway sees it: service, action, ids; no effects."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, unquote

_S3_BUCKET_ACTIONS = {
    "GET": "ListBucket",
    "HEAD": "ListBucket",
    "PUT": "CreateBucket",
    "DELETE": "DeleteBucket",
    "POST": "DeleteObject",
}
_S3_OBJECT_ACTIONS = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",
    "DELETE": "DeleteObject",
}
_S3_SUBRESOURCES = {
    "uploads": "ListBucketMultipartUploads",
    "location": "GetBucketLocation",
    "versioning": "BucketVersioning",
    "policy": "BucketPolicy",
    "acl": "BucketAcl",
    "notification": "BucketNotification",
    "lifecycle": "LifecycleConfiguration",
}
_LISTED = ("StackName", "Name", "SecretId", "RoleArn", "RoleName", "InstanceProfileName", "Path")


@dataclass(frozen=True)
class ApiRequest:
    """Headers have lower-case names; ``path`` and ``query`` are as they came over the wire."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def credential_scope(self) -> tuple[str, str, str]:
        """Access key, region and service of the signature; empty where there is none."""
        found = self.headers.get("authorization", "").partition("Credential=")[2]
        if not found:
            found = self.query_values.get("X-Amz-Credential", "")
        parts = found.partition(",")[0].split("/")
        return (parts[0], parts[2], parts[3]) if len(parts) == 5 else ("", "", "")

    @property
    def access_key(self) -> str:
        return self.credential_scope[0]

    @property
    def region(self) -> str:
        return self.credential_scope[1] or "us-east-1"

    @property
    def service(self) -> str:
        return self.credential_scope[2] or ("sts" if b"Action=AssumeRole" in self.body else "s3")

    @cached_property
    def query_values(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """Parameters of the query protocol (EC2, IAM, STS)."""
        if "x-amz-target" in self.headers or self.service == "s3":
            return {}
        text = self.body.decode("utf-8", "replace")
        return self.query_values | dict(parse_qsl(text, keep_blank_values=True))

    @property
    def is_s3(self) -> bool:
        return self.service == "s3"

    @cached_property
    def bucket(self) -> str:
        return unquote(self.path.split("/")[1]) if self.is_s3 else ""

    @cached_property
    def key(self) -> str:
        return unquote(self.path.partition("/")[2].partition("/")[2]) if self.is_s3 else ""

    @cached_property
    def action(self) -> str:
        """As IAM and CloudTrail name it, without the service."""
        if self.is_s3:
            return self._s3_action()
        target = self.headers.get("x-amz-target", "")
        return target.rpartition(".")[2] or self.form.get("Action", "")

    def _s3_action(self) -> str:
        if not self.bucket:
            return "ListAllMyBuckets"
        if self.key:
            return _S3_OBJECT_ACTIONS.get(self.method, self.method)
        for flag, action in _S3_SUBRESOURCES.items():
            if flag in self.query_values:
                return action
        return _S3_BUCKET_ACTIONS.get(self.method, self.method)

    def values(self, prefix: str) -> list[str]:
        """All values of a list parameter, like ``InstanceId.1``."""
        dotted = prefix + "."
        return [value for name, value in self.form.items() if name.startswith(dotted)]

    def identifiers(self) -> dict[str, object]:
        """Return what the API log may hold: names and ids, never data."""
        if self.is_s3:
            found: dict[str, object] = {"Bucket": self.bucket, "Key": self.key}
            for header in ("if-none-match", "if-match", "range"):
                if header in self.headers:
                    found[header] = self.headers[header]
            if "prefix" in self.query_values:
                found["Prefix"] = self.query_values["prefix"]
            return {name: value for name, value in found.items() if value}
        found = {name: self.form[name] for name in _LISTED if name in self.form}
        if self.service == "ec2":
            found |= self._ec2_identifiers()
        return found

    def _ec2_identifiers(self) -> dict[str, object]:
        names = ("ClientToken", "InstanceType", "SubnetId", "ImageId", "InstanceId", "NextToken")
        found: dict[str, object] = {name: self.form[name] for name in names if name in self.form}
        if ids := self.values("InstanceId"):
            found["InstanceIds"] = ids
        filters = {n: v for n, v in self.form.items() if n.startswith("Filter.")}
        return found | filters
