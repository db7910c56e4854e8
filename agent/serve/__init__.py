"""The scrape server, which answers with what was published last; imports metrics."""
