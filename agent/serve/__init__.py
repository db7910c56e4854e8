"""Answering scrapes with what was published last; imported by run/."""
