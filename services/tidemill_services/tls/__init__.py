"""Certificates: what the ports present, where it comes from, and whether it can be used."""
