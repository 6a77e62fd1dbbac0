"""Proofs under fire: paid money arrives exactly once, whatever happens meanwhile."""

CHECKPOINTS = "FAULTS_CHECKPOINTS"
"""The variable that tells a watched worker where its checkpoints listens."""

MUTATIONS = "FAULTS_MUTATIONS"
"""The variable that names, as JSON, the guards a worker does without from its start on."""
