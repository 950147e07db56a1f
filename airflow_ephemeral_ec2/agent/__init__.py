"""What runs on the instance: standard library and the contract only."""
