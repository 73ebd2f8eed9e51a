"""Prefect flows: they compose tasks into DAGs and do nothing else."""
