"""What operators have: the sweep, the audit, the report and the metrics."""
