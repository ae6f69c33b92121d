"""TLS credentials: kept safe, known by name, and told of when they change."""
