"""Re-identification by two functions: first the reason is recorded and committed, then the rows may be read.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_UP = """
-- Rows leave only against an event that another, committed transaction recorded: whoever rolls back has read nothing.
-- The event names the look-up, so one reason cannot serve for another question.
CREATE FUNCTION reidentify(event bigint, kinds text[], keyed_hashes bytea[], pseudonyms text[])
    RETURNS TABLE (kind text, keyed_hash bytea, pseudonym text, original bytea, key_id text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $body$
DECLARE
    allowed integer;
BEGIN
    SELECT p.project_id INTO allowed FROM audit_event e JOIN project p ON p.name = e.project
    WHERE e.event_id = event AND e.kind IN ('lookup', 'export') AND e.login = session_user
      AND e.transaction_id <> pg_current_xact_id() AND e.recorded_at > now() - interval '1 hour';
    IF allowed IS NULL THEN
        RAISE EXCEPTION 'no committed look-up event of this login' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
        SELECT m.kind, m.keyed_hash, m.pseudonym, m.original, m.key_id FROM mapping m
        WHERE m.project_id = allowed AND (
            (keyed_hashes IS NULL AND pseudonyms IS NULL AND (kinds IS NULL OR m.kind = ANY (kinds)))
            OR (m.kind = ANY (kinds) AND m.keyed_hash = ANY (keyed_hashes))
            OR (m.kind = ANY (kinds) AND m.pseudonym = ANY (pseudonyms)));
END
$body$;
REVOKE ALL ON FUNCTION reidentify(bigint, text[], bytea[], text[]) FROM PUBLIC;
CREATE INDEX mapping_shared_pseudonym ON mapping (project_id, kind, pseudonym) WHERE NOT is_unique;
"""

_DOWN = """
DROP INDEX mapping_shared_pseudonym;
DROP FUNCTION reidentify(bigint, text[], bytea[], text[]);
"""


def upgrade() -> None:
    """Add the one way to read originals."""
    op.get_bind().exec_driver_sql(_UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Take it away; the data stay."""
    op.get_bind().exec_driver_sql(_DOWN, execution_options={"no_parameters": True})
