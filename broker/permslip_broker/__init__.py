"""The broker: keeps parent-signed grants, routes authorized queries, logs every decision, reads nothing."""
