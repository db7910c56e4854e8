"""wattpush: measures power on small machines and pushes it to a Prometheus Pushgateway."""

__version__ = "0.1.0"
