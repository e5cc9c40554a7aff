"""Projects and their mapping, runs and their plan, and the audit.

Revision ID: 0001
"""

from alembic import op

revision = "0001"
down_revision = None

_UP = """
CREATE TABLE project (
    project_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    org_root text NOT NULL,
    single_patient_id text,
    uid_strategy text NOT NULL CHECK (uid_strategy IN ('stored', 'derived')),
    max_date_offset_days integer NOT NULL CHECK (max_date_offset_days > 0),
    secret bytea NOT NULL,
    key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- How many pseudonyms of each counted kind there are: the number of digits grows with them.
    patient_ids bigint NOT NULL DEFAULT 0,
    accession_numbers bigint NOT NULL DEFAULT 0,
    study_ids bigint NOT NULL DEFAULT 0,
    four_eyes boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN project.four_eyes IS 'Whether quarantine decisions need a second person.';
COMMENT ON COLUMN project.secret IS 'Random key of the project, sealed under key_id of the key ring.';

CREATE TABLE mapping (
    project_id integer NOT NULL REFERENCES project,
    kind text NOT NULL,
    keyed_hash bytea NOT NULL,
    pseudonym text NOT NULL,
    original bytea NOT NULL,
    key_id text NOT NULL,
    -- False where many originals share a pseudonym on purpose: date offsets, single_patient_id.
    is_unique boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, kind, keyed_hash)
);
COMMENT ON COLUMN mapping.keyed_hash IS 'HMAC-SHA-256 of the normalised original under the secret of the project.';
COMMENT ON COLUMN mapping.original IS 'AES-256-GCM of the normalised original under key_id of the key ring.';
CREATE UNIQUE INDEX mapping_pseudonym ON mapping (project_id, kind, pseudonym) WHERE is_unique;
CREATE INDEX mapping_key ON mapping (project_id, key_id);

CREATE TABLE work_scope (
    scope_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    source text NOT NULL,
    destination text NOT NULL,
    recipe_digest text NOT NULL,
    settings_digest text NOT NULL,
    UNIQUE (project_id, source, destination, recipe_digest, settings_digest)
);
COMMENT ON TABLE work_scope IS 'The work of one recipe and settings from one source to one destination.';

CREATE TABLE processed_object (
    scope_id integer NOT NULL REFERENCES work_scope,
    key_hash uuid NOT NULL,
    etag text NOT NULL,
    version_id text,
    outcome text NOT NULL,
    PRIMARY KEY (scope_id, key_hash)
);
COMMENT ON TABLE processed_object IS 'The last state of each source object that needs no further work.';

CREATE TABLE run (
    run_id uuid PRIMARY KEY,
    run_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    scope_id integer NOT NULL REFERENCES work_scope,
    external_id text UNIQUE,
    state text NOT NULL DEFAULT 'running',
    request text NOT NULL,
    retry_quarantined boolean NOT NULL DEFAULT false,
    listed bigint NOT NULL DEFAULT 0,
    already_done bigint NOT NULL DEFAULT 0,
    planned bigint NOT NULL DEFAULT 0,
    planned_bytes bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

CREATE TABLE batch (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES run,
    scope_id integer NOT NULL REFERENCES work_scope,
    number integer NOT NULL,
    objects bigint NOT NULL,
    bytes bigint NOT NULL,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'leased', 'finished')),
    attempt integer NOT NULL DEFAULT 0,
    token uuid,
    worker text,
    expires_at timestamptz,
    finished_at timestamptz,
    UNIQUE (run_id, number)
);
CREATE INDEX batch_live ON batch (scope_id) WHERE state = 'leased';

CREATE TABLE batch_item (
    -- No foreign key: checking it row by row would double the time that planning takes.
    batch_id bigint NOT NULL,
    item integer NOT NULL,
    key_hash uuid NOT NULL,
    encrypted_key bytea NOT NULL,
    size bigint NOT NULL,
    etag text NOT NULL,
    version_id text,
    outcome text,
    PRIMARY KEY (batch_id, item)
) WITH (fillfactor = 90);
COMMENT ON COLUMN batch_item.encrypted_key IS 'The source key, which may name a patient, sealed for the project.';

CREATE TABLE secret (
    name text PRIMARY KEY,
    secret bytea NOT NULL,
    key_id text NOT NULL
);
COMMENT ON TABLE secret IS 'Random keys of the whole store (the audit chain), sealed under key_id of the key ring.';

CREATE TABLE audit_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    kind text NOT NULL,
    run_id uuid,
    project text,
    body text NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL UNIQUE,
    login text NOT NULL DEFAULT session_user,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
);
COMMENT ON TABLE audit_event IS 'Runs begun and finished, look-ups, imports, exports; each covers the one before.';
CREATE INDEX audit_event_run ON audit_event (run_id);

CREATE TABLE audit_link (
    link_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    position bigint NOT NULL,
    batch_id bigint NOT NULL,
    attempt integer NOT NULL,
    recorded_at timestamptz NOT NULL,
    rows integer NOT NULL,
    rows_hash bytea NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    UNIQUE (run_id, position)
);
COMMENT ON TABLE audit_link IS 'The hash chain of each run over its audit rows, a link each time rows were recorded.';

CREATE TABLE audit (
    recorded_at timestamptz NOT NULL,
    run_id uuid NOT NULL,
    link_id bigint NOT NULL,
    number integer NOT NULL,
    batch_id bigint NOT NULL,
    item integer NOT NULL,
    attempt integer NOT NULL,
    project text NOT NULL,
    source text NOT NULL,
    key_hash uuid NOT NULL,
    encrypted_key bytea NOT NULL,
    source_version_id text,
    source_etag text NOT NULL,
    source_size bigint NOT NULL,
    destination text NOT NULL,
    destination_key text,
    destination_etag text,
    destination_size bigint,
    sha256_in bytea,
    sha256_out bytea,
    outcome text NOT NULL,
    reason text,
    detail text NOT NULL,
    recipe_digest bytea NOT NULL,
    settings_digest bytea NOT NULL,
    package_version text NOT NULL,
    sop_class_uid text,
    transfer_syntax_uid text,
    modality text,
    actions text NOT NULL,
    notes text NOT NULL,
    milliseconds bigint NOT NULL
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE audit IS 'One row an object and attempt, for ever; a partition a month.';
CREATE INDEX audit_run ON audit (run_id, link_id, number);
CREATE INDEX audit_key ON audit (key_hash);
CREATE INDEX audit_destination ON audit (destination_key) WHERE destination_key IS NOT NULL;

CREATE TABLE held_object (
    project_id integer NOT NULL REFERENCES project,
    source text NOT NULL,
    destination text NOT NULL,
    key_hash uuid NOT NULL,
    encrypted_key bytea NOT NULL,
    version_id text,
    etag text NOT NULL,
    size bigint NOT NULL,
    run_id uuid NOT NULL,
    link_id bigint NOT NULL,
    number integer NOT NULL,
    recorded_at timestamptz NOT NULL,
    held_since timestamptz NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    element text NOT NULL,
    modality text NOT NULL,
    sop_class_uid text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    manufacturer text NOT NULL,
    model text NOT NULL,
    software text NOT NULL,
    rows integer,
    columns integer,
    patient uuid,
    study uuid,
    group_id uuid NOT NULL,
    PRIMARY KEY (project_id, source, destination, key_hash)
);
COMMENT ON TABLE held_object IS 'Objects whose newest attempt was quarantined: one row per object.';
COMMENT ON COLUMN held_object.element IS 'The detail without offset and item numbers.';
COMMENT ON COLUMN held_object.patient IS 'Keyed digest of PatientID, to count patients; study likewise.';
COMMENT ON COLUMN held_object.group_id IS 'Digest of project, reason, device, size and element.';
CREATE INDEX held_object_group ON held_object (group_id, held_since);
CREATE INDEX held_object_row ON held_object (link_id, number);

CREATE TABLE decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    action text NOT NULL,
    is_rule boolean NOT NULL,
    rules text NOT NULL,
    settings text NOT NULL,
    note text NOT NULL,
    person text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    approved_by text,
    approved_at timestamptz,
    revoked_by text,
    revoked_at timestamptz
);
COMMENT ON TABLE decision IS 'Decisions of reviewers about held objects; rules are in the recipe language.';
COMMENT ON COLUMN decision.is_rule IS 'Whether the rules apply to all later runs of the project.';

CREATE TABLE decided_object (
    project_id integer NOT NULL REFERENCES project,
    source text NOT NULL,
    destination text NOT NULL,
    key_hash uuid NOT NULL,
    etag text NOT NULL,
    decision_id bigint NOT NULL REFERENCES decision,
    outcome text,
    run_id uuid,
    link_id bigint,
    number integer,
    PRIMARY KEY (project_id, source, destination, key_hash, decision_id)
);
COMMENT ON TABLE decided_object IS 'The objects of each decision, and the audit row of their outcome under it.';
CREATE INDEX decided_object_decision ON decided_object (decision_id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END
$body$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_link FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_link FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- A writer may make the month's partition though it owns nothing. The table is made apart and then attached, which
-- unlike CREATE TABLE ... PARTITION OF does not wait for, or hold up, those who read and write other months.
CREATE FUNCTION ensure_audit_partition(moment timestamptz) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' AS $body$
DECLARE
    first_day timestamptz := date_trunc('month', moment);
    part text := 'audit_' || to_char(date_trunc('month', moment), 'YYYYMM');
    home text := current_schema();
BEGIN
    IF to_regclass(format('%I.%I', home, part)) IS NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(home || '.audit partitions', 0));
        IF to_regclass(format('%I.%I', home, part)) IS NULL THEN
            EXECUTE format('CREATE TABLE %I.%I (LIKE %I.audit INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           home, part, home);
            EXECUTE format('ALTER TABLE %I.audit ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                           home, home, part, first_day, first_day + interval '1 month');
        END IF;
    END IF;
END
$body$;
SELECT ensure_audit_partition(now());
SELECT ensure_audit_partition(now() + interval '1 month');
REVOKE ALL ON FUNCTION ensure_audit_partition(timestamptz) FROM PUBLIC;
"""

_DOWN = """
DROP FUNCTION ensure_audit_partition(timestamptz);
DROP TABLE held_object, decided_object, decision;
DROP TABLE audit, audit_link, audit_event, secret, batch_item, batch, run, processed_object, work_scope, mapping,
    project;
DROP FUNCTION audit_is_append_only();
"""


def upgrade() -> None:
    """Make everything, from an empty schema."""
    op.get_bind().exec_driver_sql(_UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drop everything, with all data."""
    op.get_bind().exec_driver_sql(_DOWN, execution_options={"no_parameters": True})
