"""Where the metrics go: a file or folder for each destination."""
