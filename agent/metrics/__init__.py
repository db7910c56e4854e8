"""What is published: the catalogue of series, and the groups and scrapes made of it; imports energy."""
