"""Who wants what: what this node tells, what others told, and the way that a topic takes."""
