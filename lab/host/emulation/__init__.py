"""What klab does only where the host has no hardware virtualization: slow clocks, and an emulator that has them.

The rest of klab is told by one value, `lab.host.profile.HostProfile`, which a lab's record keeps (`accelerated`,
`dilation`, `epoch`); the guests' CPU and the emulator's variables are in `lab.render.emulation`.
"""
