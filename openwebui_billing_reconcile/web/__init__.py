"""What the host serves for us: the endpoints, the script of the balance page, and the console."""
