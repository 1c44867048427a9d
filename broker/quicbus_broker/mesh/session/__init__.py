"""Sessions with other nodes: dialing, proof, frames and bundles on a connection, what waits for it."""
