"""A bare push-and-ack: what a revocation is compared with.

One party sends a list of revocations to a relay; the relay pushes each to its node; the node acknowledges; the relay
hands the acknowledgement back. The same wire contract, the same sizes, the same batching and the same processes as the
product's, and nothing else: no signature is made or checked.

``durable`` adds the commits that the product cannot do without, as raw ``sqlite3`` group commits, one after the other:
at the relay before the push, at the node before it acknowledges, at the relay before the acknowledgement counts.
"""

from __future__ import annotations
