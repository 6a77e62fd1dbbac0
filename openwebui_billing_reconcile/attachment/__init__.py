"""Attach to a host: probe, apply, report, undo; the plugins; what `status` finds out."""
