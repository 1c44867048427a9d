"""Messages through the mesh: broadcast, order, what waits, back-pressure."""
