"""A Debian with real cloud-init and systemd, built once and kept in the user's cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = "systemd,systemd-sysv,dbus,cloud-init,python3,ca-certificates,iproute2"
SUITE = "bookworm"

_CLOUD = """\
datasource_list: [Ec2]
datasource: {Ec2: {metadata_urls: ["http://169.254.169.254"], max_wait: 20, timeout: 5}}
network: {config: disabled}
apt_preserve_sources_list: true
ssh_genkeytypes: []
locale: false
"""
# No locale: making one fails without its package, and of a oneshot unit that fails systemd waits
# until the cgroup is empty. With cgroups of version 1 nobody tells it that in a container, and
# cloud-init's units wait without limit: one boot in twelve hung between two of its stages.
# cloud-init asks these two who made the machine; in a container it would not even ask.
_DETECT_VIRT = "#!/bin/sh\nexit 1\n"
_DMIDECODE = """\
#!/bin/sh
case "$2" in
system-uuid|system-serial-number) echo ec2e1916-9099-7caf-fd21-012345abcdef;;
system-manufacturer) echo "Amazon EC2";;
*) echo unknown;;
esac
"""
# A container says so in the environment of its first process; this one plays a machine.
_INIT = '#!/bin/sh\nunset container\nexec /lib/systemd/systemd "$@"\n'
_FILES = {
    "etc/cloud/cloud.cfg.d/99_machine.cfg": (_CLOUD, 0o644),
    "usr/local/bin/systemd-detect-virt": (_DETECT_VIRT, 0o755),
    "usr/local/sbin/dmidecode": (_DMIDECODE, 0o755),
    "usr/bin/dmidecode": (_DMIDECODE, 0o755),
    "sbin/machine-init": (_INIT, 0o755),
}
_MASKED = ("console-getty.service", "systemd-logind.service", "cloud-init-hotplugd.socket",
           "apt-daily.timer", "apt-daily-upgrade.timer")  # fmt: skip


def missing_tools() -> list[str]:
    """Return what this host lacks to boot machines; Debian packages in brackets."""
    wanted = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2"}
    return [f"{tool} ({package})" for tool, package in wanted.items() if not shutil.which(tool)]


def find_rootfs() -> Path:
    """Return the root file system's folder; made the first time, in about half a minute."""
    content = repr((PACKAGES, SUITE, _FILES, _MASKED)).encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ephemeral-ec2"
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"rootfs-{hashlib.sha256(content).hexdigest()[:16]}"
    with (cache / "rootfs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _build(place)
    return place


def _build(place: Path) -> None:
    fresh = place.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, fresh],
        check=True,
    )
    for name, (text, mode) in _FILES.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for unit in _MASKED:
        (fresh / "etc/systemd/system" / unit).symlink_to("/dev/null")
    fresh.rename(place)
