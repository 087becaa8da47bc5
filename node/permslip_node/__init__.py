"""A node: one school's or provider's slice of learners' records, its families, and the last decision."""
