"""Integers choose tables; symbols <-> bytes."""
