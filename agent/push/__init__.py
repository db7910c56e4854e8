"""The Pushgateway: rendering, pushing and deleting groups, and the dry run; imported by all to its right."""
