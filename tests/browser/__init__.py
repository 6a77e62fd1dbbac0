"""The balance page in a real browser, with a real host and the provider's simulator behind it."""
