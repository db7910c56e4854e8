"""The Pushgateway: rendering groups, pushing and deleting them, and the dry run; imports metrics and http."""
