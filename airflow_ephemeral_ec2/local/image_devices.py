"""The block devices of AMIs: an image with further volumes, and what a launch makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from moto.ec2.models.amis import Ami

Device = Mapping[str, Any]
"""One block device mapping, as EC2's API has it."""


class LocalImage(Ami):
    """moto's image, which has a root volume, and further devices."""

    def __init__(self, *args: Any, devices: Sequence[Device] = (), **kwargs: Any) -> None:  # noqa: ANN401 - as moto has it
        super().__init__(*args, **kwargs)
        self.devices = tuple(devices)

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        (root,) = super().block_device_mappings
        # moto's images would leave their root volume behind; AMIs of Linux do not.
        root["Ebs"]["DeleteOnTermination"] = True
        return [root, *map(dict, self.devices)]


def complete_devices(call: Any) -> None:  # noqa: ANN401 - moto's response object
    """Let moto know the devices of the image, too."""
    image = call.ec2_backend.amis[call._get_param("ImageId")]  # noqa: SLF001 - moto's way to read parameters
    asked = call._get_param("BlockDeviceMappings", [])  # noqa: SLF001
    if asked or getattr(image, "devices", ()):
        call.params["BlockDeviceMappings"] = merge_devices(image.block_device_mappings, asked)


def merge_devices(of_image: Sequence[Device], asked: Sequence[Device]) -> list[dict[str, Any]]:
    """
    Say which volumes a launch gets; moto knows only those that the request describes in full.

    What a request says of a device comes before what the image says; what it leaves out is the
    image's (EC2 user guide, "Block device mapping"). Disks of the host are no volumes.
    """
    merged = {one["DeviceName"]: dict(one) for one in of_image}
    for one in asked:
        known = merged.get(one["DeviceName"], {})
        merged[one["DeviceName"]] = {**known, **one}
        if "Ebs" in known and "Ebs" in one:
            merged[one["DeviceName"]]["Ebs"] = {**known["Ebs"], **one["Ebs"]}
    return [one for one in merged.values() if "Ebs" in one and "NoDevice" not in one]
