#cloud-boothook
#!/bin/sh
D=/var/lib/ephemeral-ec2; mkdir -p $D; n=$(cat $D/boots 2>/dev/null || echo 0); n=$((n+1)); echo $n >$D/boots; sync
L=@MAX_LIFETIME@; [ $n -gt 1 ] && L=60
sysctl -qw kernel.panic=10 kernel.panic_on_oops=1 || true
timeout 20 systemd-run --no-block --unit=ephemeral-ec2-watchdog --on-active=$L --timer-property=AccuracySec=1s \
  --timer-property=DefaultDependencies=no --property=DefaultDependencies=no \
  /bin/sh -c 'systemctl --force poweroff; sleep 30; echo o >/proc/sysrq-trigger' \
  || ( setsid sh -c "sleep $L; echo o >/proc/sysrq-trigger" >/dev/null 2>&1 & )
exit 0
