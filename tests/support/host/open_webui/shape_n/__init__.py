"""What the newer host does in another way than the older one, a module for each of the older one's."""
