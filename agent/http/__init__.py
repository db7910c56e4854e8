"""Connections with a deadline, TLS, proxies and credentials, for every destination; imports settings and the clock."""
