"""The fault catalogue: what can go wrong, and what must happen then; one row per fault."""

ROWS = """
L1 | worker killed before the launch record is written | nothing is launched; a retry starts clean
L2 | worker killed after the launch record, before RunInstances | a retry uses the same record and token; one machine
L3 | killed after RunInstances answered, before the instance id is kept | the replayed token gives the same machine
L4 | answer of RunInstances lost after EC2 executed it | same request again, same zone and token; one machine
L5 | answer lost, then no capacity on the replay | definitive refusal; no machine
L6 | 500 InternalError, then success | one machine
L7 | no capacity as HTTP 500 | one call per placement, no hidden retries; next placement
L8 | no capacity in all placements | no_capacity, retryable; no machine; EC2's rate is kept
L9 | second zone while the first is still ambiguous | never: the first placement until its answer is definitive
L10 | two workers run the same task instance at once | one launch record wins; one token, one machine, one run
L11 | one caller hears "no capacity", another launches with the same token | the start lock lets one machine run; the other ends
L12 | task cleared while its machine lives | the old attempt is ended and gone before the next is launched
L13 | same DAG in two environments of one account | their tokens differ
L14 | IdempotentParameterMismatch | fail closed: look the token up, adopt or end as tampered; never another launch
L15 | IdempotentInstanceTerminated, or success with a terminated instance | launched and dead: judged; the token is not used again
L16 | token older than 24 hours | the bucket decides, not the token
L17 | RequestLimitExceeded under many launches | paced; all launched, none failed, none twice
L18 | vCPU or spot quota reached | waits and says so; does not walk placements of the same quota
L19 | type not offered in the zone | next placement; remembered
L20 | subnet out of addresses | next subnet
L21 | RunInstances or PassRole denied | fails at once, clearly, without user data in the message
L22 | AMI deregistered between lookup and launch | bad_config
L23 | SSM parameter of the AMI moves between replays | the AMI in the launch record is used
L24 | user data over 16,384 bytes | refused before any call
L25 | gzip time or key order differ on replay | the stored request is sent, byte for byte
L26 | credentials expire between two calls | fresh credentials, same token
L27 | clock of the worker is wrong | refused, then asked again; no deadline uses the host's clock
L28 | KMS denied: pending, then terminated with Client.InternalError | bad_config at once, not retried
L29 | EBS quota after the launch was accepted | quota
L30 | RunInstances answers with 0 or 2 instances, no id, or broken XML | ambiguous, extras are terminated
L31 | NotFound for minutes after the launch | keeps looking; no second launch, not "gone"
L32 | tags missing in the first answers | tolerated; the machine is not foreign
L33 | persistent spot request | never sent
L34 | CreateSchedule fails after the launch | told once, the launch goes on; the reaper covers it
L35 | a proxy delivers RunInstances twice | same token, one machine
L36 | the whole region does not answer | unknown until it does; never another region
L37 | open capacity reservations of others | never used: preference none is sent
L38 | termination protection switched on by others | seen at the first terminate; said; the reaper takes it off
B1 | cloud-init absent, or user data ignored | boot_timeout: lock revoked, machine ended, retried
B2 | metadata service slow or unreachable | the agent asks for minutes; else marker and power off
B3 | metadata service refuses (401) | version 2 with a token only; failure is on the console
B4 | role credentials not there yet | asked again with backoff
B5 | no way to S3 | console marker, power off; never success
B6 | 403 on the start lock | the work does not run; marker, power off
B7 | start lock held by another machine | does not run; reports superseded, powers off
B8 | 409 on the start lock | asked again
B9 | start lock revoked before the boot is over | does not run; powers off
B10 | code missing or with another hash | setup_failed, not retried; the work does not run
B11 | boothook blocks the boot | never: nothing in it waits
B12 | no D-Bus | the watchdog still fires
B13 | /run and /tmp mounted noexec | everything is started by its interpreter
B14 | clock of the machine is wrong | signed with the time of S3's answers
B15 | address conflict, or IPv6 only | boot_timeout
B16 | disk full at boot | the agent reports from memory
B17 | root file system broken, emergency mode | the watchdog ends the machine
B18 | pending for more than 10 minutes | ended and retried
B19 | pending, then terminated, with any StateReason | each reason has its outcome
B20 | old cloud-init reads the user data wrongly | each supported image is booted before it is supported
R1 | exit 0, 1, 255, signal, core dump | the exact code
R2 | job leaves daemons behind | they are ended with it
R3 | job powers the machine off itself | named, never success
R4 | job kills the agent or fills the process table | lost_status, never success; machine ends
R5 | job out of memory | job_oom
R6 | machine out of memory | the agent survives or the watchdog ends the machine
R7 | job fills the disk | the report arrives all the same
R8 | network lost while the job runs | the report is sent again and again, then marker and power off
R9 | disk hangs | the engine's deadline ends the machine
R10 | kernel panic | reboot, and the reboot guard ends the machine
R11 | reboot by host failure or auto-recovery | boot 2 ends the machine; the work does not run again
R12 | reboot by an operator | boot 2 ends the machine; the work does not run again
R13 | stopped by an operator | terminated; killed, not retried
R14 | terminated by an operator | killed, not retried
R15 | spot notice | the job gets SIGTERM; spot_interrupted, retried
R16 | spot reclaim without notice | spot_interrupted, retried
R17 | scheduled retirement or stop | the machine is ended; infra_failed, retried
R18 | role credentials revoked during the run | no report: marker, power off
R19 | job runs longer than max_runtime | SIGTERM, grace, SIGKILL; job_timeout
R20 | job ignores SIGTERM | SIGKILL after stop_grace
R21 | job floods its log | capped and counted; nothing on the console
R22 | somebody else writes the report | tampered, never success
R23 | clock jumps during the run | limits are monotonic
R24 | unattended upgrades reboot the machine | boot 2 ends the machine
E1 | S3 503 or timeout on the report | sent again
E2 | answer of the report's write lost, then 412 | counts as written
E3 | power lost between exit and report | lost_status, not retried
E4 | power off hangs | forced, then sysrq
E5 | halt instead of power off | never used
E6 | instance stops instead of terminating | terminated, then judged
E7 | volume that outlives its machine | never asked for; swept if it exists
E8 | shutting-down for more than 10 minutes | asked again with force; no ending before terminated
E9 | console marker late or missing | waited for at most 5 minutes
O1 | triggerer restarts | carries on from the bucket alone
O2 | two triggerers watch | one outcome
O3 | DescribeInstances throttled | backs off; no task fails
O4 | one unknown id in a batch | queries go by filter; the others are seen
O5 | DescribeInstances fails for a zone | unknown, not gone
O6 | EC2's record of the machine is gone | the report decides; else the lock says whether it ran
O7 | events lost, doubled or out of order | none are used; polling converges
O8 | S3 403 against 404 | two different answers
O9 | S3 5xx | unknown; asked again
O10 | report there, machine still running | not ended before the machine is dead
O11 | an instance flickers | gone by time, not by count
O12 | Airflow's database restored from a backup | the bucket decides; no second run
O13 | deferral times out | lock revoked, machine ended
O14 | worker dies while it surfaces the outcome | the retry surfaces the same outcome
O15 | page token expires, page repeated or missing | never "gone" from one sweep
K1 | TerminateInstances NotFound right after the launch | asked again until it is dead
K2 | answer of TerminateInstances lost | asked again
K3 | TerminateInstances denied while tags settle | asked again, and said
K4 | TerminateInstances refused: protected | said; the reaper takes the protection off
K5 | task marked or cleared while nobody hears it | bounded by the reaper's period; the next run ends the attempt first
K6 | on_kill is killed half way | the controller completes it from the kill request
K7 | kill races with success | the order of the writes decides
K8 | wrong clock, broken tag, reset LaunchTime at the reaper | age from the network interface; two sightings; nobody is killed falsely
K9 | the reaper itself is down | its DAG shows as failed or late in Airflow; the machine's and EventBridge's limits hold
K10 | somebody removes the tags | found by the client token of an open attempt
K11 | machine of another environment | never touched
K12 | very many machines to end at once | batches; errors isolated
K13 | one protected or unknown id in a batch | isolated; the others end
K14 | scheduled termination of a machine that is gone | harmless
K15 | volume or interface left over | deleted after an hour
"""


def read_rows() -> dict[str, tuple[str, str]]:
    """Return row id -> (fault, expected), in the catalogue's order."""
    rows = {}
    for line in ROWS.strip().splitlines():
        name, fault, expected = (part.strip() for part in line.split(" | "))
        rows[name] = (fault, expected)
    return rows


NOT_TESTED: dict[str, str] = {
    "B16": "needs an image that fills its own disk before cloud-init runs",
    "B17": "needs a machine in emergency mode; the watchdog has no dependencies",
    "B20": "each image has its own cloud-init; boot yours with a job that exits 37",
    "O7": "no event is used: polling alone decides",
    "R5": "needs a memory cgroup, which machines in namespaces do not have everywhere; the report's flag is judged in a unit test",
    "R6": "needs a machine that may run out of memory as a whole",
    "R10": "needs a kernel to panic; the reboot that follows is R11",
}
"""Row id -> why no test can show it without AWS."""
