"""Joining and renewing over the network: who asks for a certificate, and how the answer is found."""
