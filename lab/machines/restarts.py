"""Who starts a crashed machine again, while it is being made.

Two threads see the crash. One runs `vagrant up` (`lab.machines.vagrant.failures.vagrant_up`): Vagrant gives up at
once, and so the thread waits up to RUNS_AGAIN_SECONDS until all its machines run, then calls Vagrant once more.
The other thread is the command's own: its supervisor (`lab.cluster.wait.supervisor.Supervisor`) looks at the
machines every few seconds and restarts a crashed one, at most RESTARTS times, since only that thread has read the
console and knows whether its node can continue. They do not call each other: what one has done the other sees by the
machines' state at the provider. Once the supervisor has given a machine up, the command cancels the first thread.
"""

# QEMU without KVM sometimes ends while firmware or kernel move a device's memory: "iotlb_to_section: Assertion ...
# failed" (QEMU issue 1921).
RESTARTS = 3
# Several times as long as a supervisor takes to notice a crash and to restart the machine.
RUNS_AGAIN_SECONDS = 60.0
