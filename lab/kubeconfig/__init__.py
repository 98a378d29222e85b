"""A person's own kubeconfig: which files kubectl uses, and a lab's entries put into them."""

from lab.kubeconfig.merge import Merged, find_user, kubectl_files, merge_files

__all__ = ["Merged", "find_user", "kubectl_files", "merge_files"]
