"""klab: a scenario file becomes a lab of real virtual machines running real Kubernetes."""
