"""HTTP for every destination: connections, deadlines, TLS, proxies, credentials; imports only errors and clock."""
