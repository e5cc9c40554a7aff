"""Advisory locks of a project, and the order in which all transactions take locks.

The order is: the lock of withdrawals, rows of `batch`, the chain of links, the lock of objects, then rows of
`withdrawal` and of objects (`processed_object`, `batch_item`, `write_intent`, `deletion`, `held_object`), and the chain
of events. PostgreSQL locks the rows of one statement in any order: what changes objects of many batches takes the lock
of objects exclusively, and a worker, whose batch is its own, shares it.
"""

LOCK_WITHDRAWALS = (
    "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' withdrawal ' || %(project)s, 0));"
)
"""A withdrawal sees what was about to be written before it, and everything later sees the withdrawal."""

SHARE_WITHDRAWALS = LOCK_WITHDRAWALS.replace("xact_lock", "xact_lock_shared")

LOCK_CHAIN = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' chain ' || %(chain)s, 0));"

LOCK_OBJECTS = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' objects ' || %(project)s, 0));"

SHARE_OBJECTS = LOCK_OBJECTS.replace("xact_lock", "xact_lock_shared")
