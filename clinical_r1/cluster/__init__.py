"""The only door to Kubernetes: training jobs, rollouts of the served model, and what is wrong with a cluster."""
