"""The use case: reconcile one top-up, and tell what came of it."""
