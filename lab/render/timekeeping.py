"""Time: what each node's chrony follows (chrony.conf(5)).

Whether the hypervisor offers its clock is asked before each start of chronyd and kept in /run, never on the disk: a
disk boots on a host with KVM today and on an emulated one tomorrow, and a reference clock that cannot be opened
ends chronyd.
"""

from __future__ import annotations

from lab.components.cluster import File
from lab.plan.model import Node, Plan

CHRONY_FILE = "/etc/chrony/conf.d/klab.conf"
HOST_CLOCK_SCRIPT = "/etc/chrony/klab-host-clock.sh"
DROP_IN = "/etc/systemd/system/chrony.service.d/klab.conf"
# For chronyd alone, in memory: the reference clocks of this boot.
RUN_FOLDER = "/run/klab/chrony"
# Where older nodes name the PTP device for good, there or not.
STALE_FILE = "/etc/chrony/conf.d/klab-ptp.conf"
# For a person, on the node: chronyd starts again, on an older node, too.
RESTART = f"sudo rm -f {STALE_FILE}; sudo systemctl restart chrony"
# The same on a cloud image, which keeps time as its distribution does.
RESTART_ANY = "for unit in chronyd chrony systemd-timesyncd; do sudo systemctl -q try-restart $unit; done"
# What the kernel calls KVM's PTP device (drivers/ptp/ptp_kvm_common.c).
HOST_CLOCK = "KVM virtual PTP"
# Stratum of a node that serves the lab's time without a better source of its own (chrony.conf(5), local).
LOCAL_STRATUM = 8

# sysfs tells which device it is: /dev/ptp0 may be another clock, and udev's link to it may come later.
# trust: after the host has slept, all control planes agree on a time that is wrong.
_HOST_CLOCK_SCRIPT = f"""\
# Made by klab. Names the host's clock as chronyd's source of time while KVM offers it.
mkdir -p {RUN_FOLDER}
rm -f {RUN_FOLDER}/*
for clock in /sys/class/ptp/*; do
    [ -e "$clock/clock_name" ] && read -r name < "$clock/clock_name" && [ "$name" = "{HOST_CLOCK}" ] || continue
    echo "refclock PHC /dev/${{clock##*/}} poll 2 dpoll -2 offset 0 stratum 2 prefer trust" > {RUN_FOLDER}/host.conf
    break
done
"""

# No modules-load.d: that fails, and with it the boot's state, where the module finds no KVM. And the module has to be
# there before the unit starts, whose DeviceAllow= takes what /proc/devices lists then (systemd.resource-control(5)).
_DROP_IN = f"""\
[Unit]
Wants=modprobe@ptp_kvm.service
After=modprobe@ptp_kvm.service

[Service]
ExecStartPre=-+/bin/sh {HOST_CLOCK_SCRIPT}
"""


def render_chrony(plan: Plan, node: Node) -> list[File]:
    """chrony's files on one node: the lab's clocks agree, with or without a network outside.

    Control planes serve the time. A node that is offered the host's clock (KVM's PTP device) follows that; without
    it the control plane that chrony's orphan mode elects sets the time for all, and workers follow the control
    planes. An offset above half a second is stepped, at any time.
    """
    peers = [n for n in plan.control_planes if n.name != node.name]
    lines = [f"server {n.address} iburst minpoll 1 maxpoll 3" for n in peers]
    lines += ["makestep 0.5 -1", "rtcsync", f"confdir {RUN_FOLDER}"]
    if node.is_control_plane:
        lines += [f"allow {plan.networks.cidr}", f"local stratum {LOCAL_STRATUM} orphan"]
    return [
        File(CHRONY_FILE, "\n".join(lines) + "\n"),
        File(HOST_CLOCK_SCRIPT, _HOST_CLOCK_SCRIPT),
        File(DROP_IN, _DROP_IN),
    ]
