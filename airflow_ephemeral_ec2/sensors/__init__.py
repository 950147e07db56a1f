"""What DAG authors import to wait for a job started elsewhere."""
