"""Who is a member and in what state: records, claims, suspicion, gossip, comparing of tables."""
