"""What EC2 refuses in a RunInstances request before it looks for capacity."""

from base64 import b64decode
from binascii import Error as BadBase64
from contextlib import suppress
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.utils import filter_iam_instance_profiles

from airflow_ephemeral_ec2.local.user_data_parts import MAX_BYTES


def check_launch(call: Any) -> None:  # noqa: ANN401 - moto's response object
    """
    Check counts, user data, image, type, shutdown behaviour, profile and security groups.

    :raises EC2ClientError: with EC2's own error codes.
    """
    _check_counts(call)
    _check_user_data(call._get_param("UserData"))  # noqa: SLF001 - moto's way to read parameters
    if call._get_param("LaunchTemplate"):  # noqa: SLF001
        _refuse("UnsupportedOperation", "The local EC2 does not imitate launch templates.")
    _check_machine(call)
    behavior = call._get_param("InstanceInitiatedShutdownBehavior")  # noqa: SLF001
    if behavior not in {None, "stop", "terminate"}:
        _refuse("InvalidParameterValue", f"Invalid shutdown behavior: {behavior}")
    _check_profile(call)
    _check_groups(call)


def is_nitro(instance_type: str) -> bool:
    """Say whether machines of a type are on Nitro: EC2 can read their console while they live."""
    return bool(INSTANCE_TYPES.get(instance_type, {}).get("Hypervisor") != "xen")


def _check_counts(call: Any) -> None:  # noqa: ANN401
    low = int(call._get_param("MinCount", 0) or 0)  # noqa: SLF001
    high = int(call._get_param("MaxCount", 0) or 0)  # noqa: SLF001
    if not low or not high:
        missing = "MaxCount" if low else "MinCount"
        _refuse("MissingParameter", f"The request must contain the parameter {missing}")
    if low > high:
        text = f"Invalid value '{low}' for MinCount. It must not exceed MaxCount ({high})."
        _refuse("InvalidParameterValue", text)


def _check_user_data(value: object) -> None:
    if value is None:
        return
    try:
        raw = b64decode(value if isinstance(value, bytes) else str(value), validate=True)
    except BadBase64:
        _refuse("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
        return
    if len(raw) > MAX_BYTES:
        _refuse("InvalidParameterValue", f"User data is limited to {MAX_BYTES} bytes")


def _check_machine(call: Any) -> None:  # noqa: ANN401
    image_id = call._get_param("ImageId")  # noqa: SLF001
    if not image_id:
        _refuse("MissingParameter", "The request must contain the parameter ImageId")
    image = call.ec2_backend.amis.get(image_id)
    if image is None:
        malformed = not str(image_id).startswith("ami-")
        code = "InvalidAMIID.Malformed" if malformed else "InvalidAMIID.NotFound"
        _refuse(code, f"The image id '[{image_id}]' does not exist")
    name = call._get_param("InstanceType", "m1.small")  # noqa: SLF001
    facts = INSTANCE_TYPES.get(name)
    if facts is None:
        _refuse("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
        return
    known = facts["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in known:
        text = (
            f"The architecture '{','.join(known)}' of the specified instance type does not match "
            f"the architecture '{image.architecture}' of the specified AMI."
        )
        _refuse("InvalidParameterValue", text)


def _check_profile(call: Any) -> None:  # noqa: ANN401
    name = call._get_param("IamInstanceProfile.Name")  # noqa: SLF001
    arn = call._get_param("IamInstanceProfile.Arn")  # noqa: SLF001
    if not name and not arn:
        return
    with suppress(Exception):  # whatever moto raises for an unknown profile
        if filter_iam_instance_profiles(call.current_account, call.partition, arn, name):
            return
    _refuse(
        "InvalidParameterValue",
        f"Value ({arn or name}) for parameter iamInstanceProfile is invalid. "
        f"Invalid IAM Instance Profile {'ARN' if arn else 'name'}",
    )


def _check_groups(call: Any) -> None:  # noqa: ANN401
    """Moto looks at the groups of the instance only, not at those of its network interfaces."""
    known = {group for groups in call.ec2_backend.groups.values() for group in groups}
    for name, value in call.querystring.items():
        if name.startswith("NetworkInterface.") and ".SecurityGroupId." in name:
            wanted = value[0]
            if wanted not in known:
                text = f"The security group '{wanted}' does not exist"
                _refuse("InvalidGroup.NotFound", text)


def _refuse(code: str, message: str) -> None:
    raise EC2ClientError(code, message)
