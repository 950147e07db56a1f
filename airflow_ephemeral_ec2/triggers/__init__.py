"""Deferred waiting."""
