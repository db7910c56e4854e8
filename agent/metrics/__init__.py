"""The published metrics: the catalogue of series, and the groups built from it; imported by all to its right."""
