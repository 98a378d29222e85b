"""Kubernetes itself: what each version needs, and where its programs and images come from."""

# What a scenario gets that names none: the newest version that all of klab's tests have passed with.
DEFAULT = "1.37.2"
