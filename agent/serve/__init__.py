"""Answering scrapes with what was published last; imports metrics."""
