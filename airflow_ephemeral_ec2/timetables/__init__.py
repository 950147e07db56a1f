"""Timetables of payer DAGs."""
