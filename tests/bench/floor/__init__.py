"""The floor: the least that a federated query can cost here.

A relay with the product's batching (:class:`permslip.outbox.Outbox`, lists in every message of the same wire contract)
moves the same bytes over the same hops, and each party makes exactly the library calls that the design requires of it:

=========  ==========================================================================================================
requester  a reply key pair, signs the query; opens the content key, verifies opening and manifest, opens the chunks
relay      verifies the query, commits one row durably, routes; forwards the answer untouched
node       verifies the query, commits one row durably while it seals; signs opening and manifest, seals the content
           key and the chunks; nothing leaves before the commit returned
=========  ==========================================================================================================

Nothing else: no strict decoding, no bounds, no facts, no decision, no tree, no record is read or parsed, nobody says
hello. Verifying and the like are calls of libsodium through PyNaCl; a commit is ``sqlite3`` in WAL mode with
``synchronous=FULL``, many rows in one transaction as they come.

``bare`` leaves out the cryptography and the commits; ``unbatched`` also sends each frame as a message of its own.
"""

from __future__ import annotations
