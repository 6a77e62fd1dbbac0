"""What the tests that run a whole host share: the host, its people, its books and PostgreSQL."""
