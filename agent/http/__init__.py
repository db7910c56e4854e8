"""Connections with a deadline, TLS, proxies and credentials; imported by all to its right."""
