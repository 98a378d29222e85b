"""Virtual machines: the protocol, and the providers that keep it."""
