"""The product, as it is measured: a real broker and real nodes, each a process with its own database and keys.

A federation is first laid out on the disk (:mod:`tests.bench.product.laying`): keys, certificates, configuration,
admissions, grants, records. Then its processes are started (:mod:`tests.bench.product.running`), exactly as the
commands ``permslip broker run`` and ``permslip node run`` start them, with their default settings.
"""

from __future__ import annotations
