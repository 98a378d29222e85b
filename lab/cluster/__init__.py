"""What makes nodes a cluster: secrets, bootstrap, the wait until Ready, and the reasons when it fails."""
