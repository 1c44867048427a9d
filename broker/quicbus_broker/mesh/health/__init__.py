"""Whether neighbours live: probes, help of others, doubt of oneself."""
