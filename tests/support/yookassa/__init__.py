"""A YooKassa v3 in memory: what the tests and the demo speak to instead of the provider."""
