"""Measurements of isopress against its peers, on public data: see RESULTS.md."""
