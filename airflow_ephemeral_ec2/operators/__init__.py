"""What DAG authors import to launch."""
