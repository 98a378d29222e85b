"""What klab does only where the host has no hardware virtualization: how slow guests are, and slower clocks for them.

The rest of klab is told by one value, `lab.host.profile.HostProfile`, which a lab's record keeps (`accelerated`,
`dilation`, `epoch`); the guests' CPU and the variables that QEMU gets are in `lab.render.emulation`.
"""
