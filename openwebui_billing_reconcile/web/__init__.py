"""What the host serves for us: the endpoint, and the script of the balance page."""
