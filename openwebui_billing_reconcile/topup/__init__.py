"""The use cases: reconcile or release a top-up, and tell what came of it."""
