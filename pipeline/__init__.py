"""The job as plain functions: configuration, datasets, the ledger, completion, export and report.

May import kb, generators and selection; never flows or prefect.
"""
