"""What runs and serves without a person waiting: the sweep."""
