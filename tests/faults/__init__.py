"""Proofs under fire: paid money arrives exactly once, whatever happens meanwhile."""

DIRECTOR = "FIRE_DIRECTOR"
"""The variable that tells a watched worker where its director listens."""

WITHOUT = "FIRE_WITHOUT"
"""The variable that names, as JSON, the guards a worker does without from its start on."""
