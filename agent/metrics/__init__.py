"""The catalogue of published series, and the groups and scrapes that are made of it; imports energy."""
