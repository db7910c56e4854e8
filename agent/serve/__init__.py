"""The server that answers scrapes with the metrics published last; imported by run/."""
