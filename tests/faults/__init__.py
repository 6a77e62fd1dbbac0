"""Fault injection: a paid top-up is credited exactly once, whatever happens meanwhile."""

CHECKPOINTS = "FAULTS_CHECKPOINTS"
"""The variable that tells a watched worker the port of the test's ``Checkpoints``."""
