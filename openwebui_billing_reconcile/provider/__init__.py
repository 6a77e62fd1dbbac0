"""The payment provider: when it is asked, and through which client."""
