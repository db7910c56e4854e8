"""The server that answers scrapes with the metrics published last, and shows a live page; imported by run/."""
