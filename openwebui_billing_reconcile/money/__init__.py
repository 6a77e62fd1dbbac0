"""Pure values and the rules of money."""
