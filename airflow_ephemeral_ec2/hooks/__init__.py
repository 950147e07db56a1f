"""The only layer that calls AWS."""
