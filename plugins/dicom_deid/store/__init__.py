"""PostgreSQL: the mapping, the audit and the plan of work."""
