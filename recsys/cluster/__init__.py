"""The Ray cluster: connecting to it, its resources, its autoscaler, and the paths that all nodes share."""
