"""One instance as DescribeInstances writes it: every field that EC2 sends, so that parsing costs as much."""

from __future__ import annotations

from xml.sax.saxutils import escape

OWNER = "123456789012"
STATE_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}

_HEAD = """<item><instanceId>{id}</instanceId><imageId>ami-0abcdef1234567890</imageId>\
<instanceState><code>{code}</code><name>{state}</name></instanceState>\
<privateDnsName>{dns}</privateDnsName><dnsName/>{reason}<amiLaunchIndex>0</amiLaunchIndex><productCodes/>\
<instanceType>{type}</instanceType><launchTime>{launched}</launchTime>\
<placement><availabilityZoneId>use1-az1</availabilityZoneId>\
<availabilityZone>us-east-1a</availabilityZone><groupName/><tenancy>default</tenancy></placement>\
<monitoring><state>disabled</state></monitoring>"""
_NETWORK = """<subnetId>{subnet}</subnetId><vpcId>vpc-0123456789abcdef0</vpcId>\
<privateIpAddress>{ip}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>\
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>batch</groupName></item></groupSet>"""
_MIDDLE = """<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>\
<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping>{disk}</blockDeviceMapping>\
<virtualizationType>hvm</virtualizationType><clientToken>{token}</clientToken>\
<tagSet>{tags}</tagSet><hypervisor>xen</hypervisor>"""
_INTERFACE = """<networkInterfaceSet><item><networkInterfaceId>eni-{hex}</networkInterfaceId>\
<subnetId>{subnet}</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/>\
<ownerId>123456789012</ownerId><status>in-use</status><macAddress>02:01:02:03:04:05</macAddress>\
<privateIpAddress>{ip}</privateIpAddress><privateDnsName>{dns}</privateDnsName>\
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId>\
<groupName>batch</groupName></item></groupSet><attachment>\
<attachmentId>eni-attach-{hex}</attachmentId><deviceIndex>0</deviceIndex><status>attached</status>\
<attachTime>{launched}</attachTime><deleteOnTermination>true</deleteOnTermination>\
<networkCardIndex>0</networkCardIndex></attachment><privateIpAddressesSet><item>\
<privateIpAddress>{ip}</privateIpAddress><privateDnsName>{dns}</privateDnsName>\
<primary>true</primary></item></privateIpAddressesSet><ipv6AddressesSet/>\
<interfaceType>interface</interfaceType><operator><managed>false</managed></operator></item>\
</networkInterfaceSet><iamInstanceProfile>\
<arn>arn:aws:iam::123456789012:instance-profile/payer-machine</arn>\
<id>AIPA0123456789ABCDEF0</id></iamInstanceProfile>"""
_TAIL = """<ebsOptimized>false</ebsOptimized><enaSupport>true</enaSupport>\
<cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
<capacityReservationSpecification><capacityReservationPreference>none</capacityReservationPreference>\
</capacityReservationSpecification><hibernationOptions><configured>false</configured>\
</hibernationOptions><enclaveOptions><enabled>false</enabled></enclaveOptions>\
<metadataOptions><state>applied</state><httpTokens>required</httpTokens>\
<httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>\
<httpProtocolIpv4>enabled</httpProtocolIpv4><httpProtocolIpv6>disabled</httpProtocolIpv6>\
<instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>\
<maintenanceOptions><autoRecovery>disabled</autoRecovery></maintenanceOptions>\
<platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances</usageOperation>\
<usageOperationUpdateTime>{launched}</usageOperationUpdateTime>\
<privateDnsNameOptions><hostnameType>ip-name</hostnameType>\
<enableResourceNameDnsARecord>false</enableResourceNameDnsARecord>\
<enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions>\
<bootMode>uefi-preferred</bootMode><currentInstanceBootMode>uefi</currentInstanceBootMode>\
<operator><managed>false</managed></operator></item>"""
_DISK = """<item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{hex}</volumeId>\
<status>attached</status><attachTime>{launched}</attachTime>\
<deleteOnTermination>true</deleteOnTermination></ebs></item>"""


def render_instance(
    *,
    instance_id: str,
    state: str,
    reason: tuple[str, str] | None,
    instance_type: str,
    subnet: str,
    launched: str,
    token: str,
    tags: dict[str, str],
) -> bytes:
    """Write the ``<item>`` of an instance; one that is terminated has lost network and disk."""
    number = int(instance_id[-6:], 16)
    ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    fields = {
        "id": instance_id,
        "hex": instance_id[2:],
        "code": STATE_CODES[state],
        "state": state,
        "type": instance_type,
        "launched": launched,
        "subnet": subnet,
        "ip": ip,
        "dns": "" if state == "terminated" else f"ip-{ip.replace('.', '-')}.ec2.internal",
        "token": token,
        "tags": "".join(
            f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>"
            for key, value in tags.items()
        ),
        "reason": f"<reason>{escape(reason[1])}</reason>" if reason else "<reason/>",
    }
    is_gone = state == "terminated"
    fields["disk"] = "" if is_gone else _DISK.format(**fields)
    why = ""
    if reason:
        why = (
            f"<stateReason><code>{reason[0]}</code><message>{escape(reason[1])}</message>"
            "</stateReason>"
        )
    network = "" if is_gone else _NETWORK
    interface = "<networkInterfaceSet/>" if is_gone else _INTERFACE
    return (
        (_HEAD + network + "{why}" + _MIDDLE + interface + _TAIL).format(why=why, **fields).encode()
    )


def render_reservation(instance_id: str, item: bytes) -> bytes:
    """Write the reservation of one instance, as each RunInstances call makes one."""
    return (
        b"<item><reservationId>r-%s</reservationId><ownerId>123456789012</ownerId><groupSet/>"
        b"<instancesSet>%s</instancesSet></item>" % (instance_id[2:].encode(), item)
    )
