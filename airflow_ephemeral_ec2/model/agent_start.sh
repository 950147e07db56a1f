#!/bin/sh
''':'
[ -n "$PATH" ] || export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for p in python3 /usr/libexec/platform-python python3.13 python3.12 python3.11 python3.10 python3.9
do
"$p" -ISc 'import sys;sys.exit(sys.version_info<(3,9))' 2>/dev/null || continue
[ -z "$EPHEMERAL_EC2_POWEROFF" ] && [ -d /run/systemd/system ] && systemd-run --quiet --no-block --unit=ephemeral-ec2-agent -p After=network-online.target -p KillMode=mixed -p TimeoutStopSec=300 -p OOMScoreAdjust=-1000 -p StandardOutput=journal+console -p 'ExecStopPost=/bin/sh -c "systemctl --no-block poweroff"' "$(command -v "$p")" -ISB "$0" && exit 0
exec "$p" -ISB "$0"
done
echo "EPHEMERAL-EC2 no Python 3.9 or newer on this image"
case "$EPHEMERAL_EC2_POWEROFF" in
"") systemctl poweroff || poweroff; sleep 60; systemctl --force poweroff; sleep 30; echo o >/proc/sysrq-trigger;;
[*) exit 1;;
*) exec "$EPHEMERAL_EC2_POWEROFF";;
esac
'''
