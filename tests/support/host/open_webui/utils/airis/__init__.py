"""The part of the host that its fork adds to the original."""
