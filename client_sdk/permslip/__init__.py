"""Permslip: a federated consent and access broker for learner profiles."""
