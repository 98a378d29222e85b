"""What a lab's cluster is put together from. One file answers every question about one component; pure.

A component registers by being a module in the package of its kind, under the name that a scenario gives it:
a pod network in `cni`, a container runtime in `runtime`. No other part of klab knows a component by name.
"""
