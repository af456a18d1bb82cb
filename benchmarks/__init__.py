"""Measurements of isopress against its rivals, on public data: see RESULTS.md."""
