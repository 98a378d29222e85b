"""Kubernetes itself: what each version needs, and where its programs and images come from."""
