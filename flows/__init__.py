"""The job as Prefect flows, their deployments, and the command line."""
