"""What reconciling costs, measured side by side: `make bench`."""
