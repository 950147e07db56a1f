"""What a run of the state machine must have reached, so that its silence says something."""

from tests.state_machine.process import FAULTS

RULES = (
    "first try",
    "retry",
    "clear",
    "kill",
    "tick of controller A",
    "tick of controller B",
    "everything goes well for a while",
    "launch goes wrong",
    "end goes wrong",
    "crash of a controller",
    "release of the lease",
    "resume of a frozen process",
    "restart of everything",
    "reaper pass",
    "machine step",
    "EC2 completes a transition",
    "machine fault",
    "capacity gone",
    "capacity back",
    "quota",
    "visibility",
    "queue state damaged",
    "foreign",
    "vanish",
    "time",
    "a day without us",
)
MACHINE_FAULTS = (
    "spot",
    "spot without notice",
    "host lost",
    "hang",
    "impaired",
    "network lost",
    "reboot",
    "stopped",
    "terminated by somebody",
    "hidden",
    "stuck",
)
EVENTS = (
    "ec2: forced",
    "ec2: machine not visible yet",
    "ec2: no capacity",
    "ec2: over quota",
    "ec2: record vanished",
    "ec2: token forgotten",
    "ec2: token of a dead machine",
    "ec2: token replayed",
    "fault: machine's answer lost",
    "machine: superseded",
    "machine: watchdog",
    "machine: work started",
    "process: resumed",
    "reaper: orphan ended",
)
OUTCOMES = (
    "succeeded",
    "job_failed",
    "job_timeout",
    "setup_failed",
    "boot_timeout",
    "never_started",
    "spot_interrupted",
    "infra_failed",
    "no_capacity",
    "wait_timeout",
    "killed",
    "superseded",
    "lost_status",
)
ALWAYS = (
    *(f"rule: {name}" for name in RULES),
    *(f"machine fault: {name}" for name in MACHINE_FAULTS),
)
"""In every run, however short."""
ALL = (
    *ALWAYS,
    *(f"fault: {where} {kind}" for kind, where in FAULTS),
    *EVENTS,
    *(f"outcome: {name}" for name in OUTCOMES),
)
"""In the long run of ``make nightly``."""
