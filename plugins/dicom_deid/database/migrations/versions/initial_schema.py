"""The initial schema: projects and their mapping, runs and their plan, the audit, and the functions over them.

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
    patient_key text NOT NULL CHECK (patient_key IN ('id', 'id-and-issuer')),
    index_attributes text NOT NULL,
    secret bytea NOT NULL,
    key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    -- Number of pseudonyms of each kind that has a limited number of digits; new ones get more digits as it grows.
    patient_ids bigint NOT NULL DEFAULT 0,
    accession_numbers bigint NOT NULL DEFAULT 0,
    study_ids bigint NOT NULL DEFAULT 0,
    four_eyes boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN project.four_eyes IS 'Whether quarantine decisions need a second person.';
COMMENT ON COLUMN project.secret IS 'Random key of the project, encrypted under key_id; empty once it is deleted.';

CREATE TABLE secret (
    name text PRIMARY KEY,
    secret bytea NOT NULL,
    key_id text NOT NULL
);
COMMENT ON TABLE secret IS 'Random keys of the whole schema (the audit chain), encrypted under key_id.';

CREATE TABLE key_check (
    key_id text PRIMARY KEY,
    check_value bytea NOT NULL
);
COMMENT ON TABLE key_check IS 'A digest of each key that encrypts something, so that another key of its id is refused.';

CREATE TABLE patient (
    patient_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    keyed_hash bytea NOT NULL,
    UNIQUE (project_id, keyed_hash)
);
COMMENT ON TABLE patient IS 'One row per original PatientID, so that all that belongs to one patient is found.';

CREATE TABLE patient_term (
    project_id integer NOT NULL REFERENCES project,
    patient_hash bytea NOT NULL,
    term_hash bytea NOT NULL,
    term bytea NOT NULL,
    is_lasting boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (project_id, patient_hash, term_hash)
);
COMMENT ON TABLE patient_term IS 'What runs removed from the objects of a patient and search for in the others.';
COMMENT ON COLUMN patient_term.patient_hash IS 'Keyed hash of the original PatientID, as in mapping.';
COMMENT ON COLUMN patient_term.is_lasting IS 'Whether objects that were written without it are written again.';
COMMENT ON COLUMN patient_term.term IS 'AES-256-GCM of kind, value and tag under a key of the project.';

CREATE TABLE archive_word (
    project_id integer NOT NULL REFERENCES project,
    word_hash bytea NOT NULL,
    patient_hash bytea NOT NULL,
    word bytea NOT NULL,
    is_name boolean NOT NULL DEFAULT false,
    PRIMARY KEY (project_id, word_hash, patient_hash)
);
COMMENT ON TABLE archive_word IS 'Words of free text that no list has, one row per patient up to a bound per word.';
COMMENT ON COLUMN archive_word.word_hash IS 'The first 128 bits of a keyed hash of the word.';
COMMENT ON COLUMN archive_word.word IS 'AES-256-GCM of the word under a key of the project.';
COMMENT ON COLUMN archive_word.is_name IS 'Whether it was in a person''s name: then the archive does not vouch for it.';
CREATE INDEX archive_word_patient ON archive_word (project_id, patient_hash);

CREATE TABLE archive_word_snapshot (
    project_id integer NOT NULL REFERENCES project,
    digest text NOT NULL,
    words bytea NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (project_id, digest)
);
COMMENT ON TABLE archive_word_snapshot IS 'Hashes of the words that the archive vouched for when a run was planned.';

CREATE TABLE mapping (
    project_id integer NOT NULL REFERENCES project,
    kind text NOT NULL,
    keyed_hash bytea NOT NULL,
    pseudonym text NOT NULL,
    original bytea NOT NULL,
    key_id text NOT NULL,
    -- False where many originals share a pseudonym on purpose: date offsets, single_patient_id.
    is_unique boolean NOT NULL,
    patient_number bigint,
    row_check bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, kind, keyed_hash)
);
COMMENT ON COLUMN mapping.keyed_hash IS 'HMAC-SHA-256 of the normalised original under the secret of the project.';
COMMENT ON COLUMN mapping.original IS 'AES-256-GCM of the normalised original under key_id of the key ring.';
COMMENT ON COLUMN mapping.row_check IS 'HMAC of kind, keyed hash and pseudonym: one that was moved is found.';
CREATE UNIQUE INDEX mapping_pseudonym ON mapping (project_id, kind, pseudonym) WHERE is_unique;
CREATE INDEX mapping_shared_pseudonym ON mapping (project_id, kind, pseudonym) WHERE NOT is_unique;
CREATE INDEX mapping_key ON mapping (project_id, key_id);
CREATE INDEX mapping_patient ON mapping (patient_number) WHERE patient_number IS NOT NULL;

CREATE TABLE recipe (
    digest text PRIMARY KEY,
    name text NOT NULL,
    text text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE recipe IS 'The text of every recipe that a run used.';

CREATE TABLE work_scope (
    scope_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    source_store text NOT NULL,
    destination text NOT NULL,
    UNIQUE (project_id, source_store, destination)
);
COMMENT ON TABLE work_scope IS 'All work of a project from one bucket (or the local file system) to one destination.';

CREATE TABLE rules (
    rules_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipe_digest text NOT NULL,
    settings_digest text NOT NULL,
    work_digest text NOT NULL,
    UNIQUE (recipe_digest, settings_digest)
);
COMMENT ON COLUMN rules.work_digest IS
    'Both without learned text layouts: what was done under the same is not done again for a layout.';
COMMENT ON TABLE rules IS 'A recipe and settings: everything that decides how an object is de-identified.';

CREATE TABLE source_series (
    series_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    -- Keyed hashes as in mapping; empty where the object has no such identifier.
    series_hash bytea NOT NULL,
    study_hash bytea NOT NULL,
    accession_hash bytea NOT NULL,
    patient_hash bytea NOT NULL,
    issuer_hash bytea NOT NULL,
    UNIQUE (project_id, series_hash, study_hash, accession_hash, patient_hash, issuer_hash)
);
COMMENT ON TABLE source_series IS 'One row per series, by which the objects of a patient or study are found.';
CREATE INDEX source_series_patient ON source_series (project_id, patient_hash);
CREATE INDEX source_series_accession ON source_series (project_id, accession_hash);
CREATE INDEX source_series_study ON source_series (project_id, study_hash);

CREATE TABLE processed_object (
    scope_id integer NOT NULL REFERENCES work_scope,
    key_hash uuid NOT NULL,
    object_id uuid NOT NULL DEFAULT gen_random_uuid(),
    encrypted_key bytea NOT NULL,
    -- The newest state: of which version, by which rules. Null until the first outcome is recorded.
    etag text,
    version_id text,
    outcome text,
    reason text,
    selection text,
    rules_id integer,
    package_version text,
    run_id uuid,
    -- What is at the destination now.
    destination_key text,
    destination_etag text,
    destination_size bigint,
    series_number bigint,
    instance_hash uuid,
    withdrawal_id uuid,
    source_deleted_at timestamptz,
    -- Number of lasting terms of the patient that it was searched for; null if it was not searched.
    terms integer,
    lacks_terms boolean NOT NULL DEFAULT false,
    PRIMARY KEY (scope_id, key_hash)
);
COMMENT ON TABLE processed_object IS 'The newest state of each source object that a worker has taken up.';
COMMENT ON COLUMN processed_object.key_hash IS 'HMAC of the whole source key, prefix included.';
COMMENT ON COLUMN processed_object.selection IS 'Digest of the criteria that excluded it; else null.';
COMMENT ON COLUMN processed_object.object_id IS 'A random id, which the audit uses instead of the source key.';
COMMENT ON COLUMN processed_object.instance_hash IS 'The first 128 bits of the keyed hash of the SOP Instance UID.';
CREATE UNIQUE INDEX processed_object_id ON processed_object (object_id);
-- Rows are made without them, before the objects are read.
CREATE INDEX processed_object_series ON processed_object (series_number) WHERE series_number IS NOT NULL;
CREATE INDEX processed_object_instance ON processed_object (instance_hash) WHERE instance_hash IS NOT NULL;
CREATE INDEX processed_object_outcome ON processed_object (scope_id, outcome);
COMMENT ON COLUMN processed_object.lacks_terms IS 'Written before a lasting term of its patient was known.';
CREATE INDEX processed_object_lacks_terms ON processed_object (scope_id) WHERE lacks_terms;
CREATE INDEX processed_object_deleted ON processed_object (scope_id) WHERE source_deleted_at IS NOT NULL;

CREATE TABLE done_container (
    scope_id integer NOT NULL REFERENCES work_scope,
    key_hash uuid NOT NULL,
    etag text NOT NULL,
    rules_id integer NOT NULL,
    selection text NOT NULL,
    PRIMARY KEY (scope_id, key_hash)
);
COMMENT ON TABLE done_container IS 'Containers whose members a plan found done: they are not restored.';

CREATE TABLE run (
    run_id uuid PRIMARY KEY,
    run_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    scope_id integer NOT NULL REFERENCES work_scope,
    rules_id integer NOT NULL REFERENCES rules,
    external_id text UNIQUE,
    state text NOT NULL DEFAULT 'running',
    request text NOT NULL,
    retry_quarantined boolean NOT NULL DEFAULT false,
    selection text NOT NULL DEFAULT '',
    listed bigint NOT NULL DEFAULT 0,
    already_done bigint NOT NULL DEFAULT 0,
    planned bigint NOT NULL DEFAULT 0,
    planned_bytes bigint NOT NULL DEFAULT 0,
    archived bigint NOT NULL DEFAULT 0,
    archived_bytes bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    -- Counted when the run ends.
    patients_of_several_issuers bigint NOT NULL DEFAULT 0,
    studies_of_several_patients bigint NOT NULL DEFAULT 0
);
CREATE INDEX run_scope ON run (scope_id) WHERE state = 'running';

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
    in_flight integer[] NOT NULL DEFAULT '{}',
    started_at timestamptz,
    expires_at timestamptz,
    finished_at timestamptz,
    UNIQUE (run_id, number)
);
COMMENT ON COLUMN batch.in_flight IS 'Items that the worker is processing: should it die, they are suspected.';
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
    deaths smallint NOT NULL DEFAULT 0,
    is_archived boolean NOT NULL DEFAULT false,
    PRIMARY KEY (batch_id, item)
    -- Room for the version with the outcome in the same page: no index is written for it.
) WITH (fillfactor = 50);
COMMENT ON COLUMN batch_item.encrypted_key IS 'The whole source key, which may name a patient, encrypted.';
COMMENT ON COLUMN batch_item.is_archived IS 'It cannot be read: the store is asked to restore it.';
COMMENT ON COLUMN batch_item.outcome IS 'Also: left (another run has it), done (another run has done it meanwhile).';

CREATE TABLE write_intent (
    batch_id bigint NOT NULL,
    item integer NOT NULL,
    run_id uuid NOT NULL,
    scope_id integer NOT NULL,
    key_hash uuid NOT NULL,
    destination_key text NOT NULL,
    reason text,
    series_number bigint,
    instance_hash uuid,
    withdrawal_id uuid,
    intended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, item)
);
COMMENT ON TABLE write_intent IS
    'What a worker is about to write, until the audit rows are recorded; with a reason, a copy in quarantine.';
CREATE INDEX write_intent_withdrawal ON write_intent (withdrawal_id) WHERE withdrawal_id IS NOT NULL;

CREATE TABLE withdrawal (
    withdrawal_id uuid PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'finished', 'undone', 'erased')),
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON TABLE withdrawal IS 'Released objects taken back; who, why and what is in the audit under the same id.';

CREATE TABLE withdrawn (
    project_id integer NOT NULL REFERENCES project,
    kind text NOT NULL,
    keyed_hash bytea NOT NULL,
    withdrawal_id uuid NOT NULL REFERENCES withdrawal,
    PRIMARY KEY (project_id, kind, keyed_hash)
);
COMMENT ON TABLE withdrawn IS 'Keyed hashes of withdrawn identifiers: objects that have one are not written.';

CREATE TABLE deletion (
    deletion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    withdrawal_id uuid,
    run_id uuid,
    scope_id integer NOT NULL,
    object_id uuid NOT NULL,
    place text NOT NULL CHECK (place IN ('destination', 'release', 'quarantine')),
    url text NOT NULL,
    -- Of a copy in quarantine the key begins with the reason and holds the source key, which may name a patient.
    key text,
    reason text,
    key_hash uuid,
    encrypted_key bytea,
    etag text
);
COMMENT ON TABLE deletion IS 'Objects that must be deleted and are not yet: superseded or withdrawn.';
CREATE INDEX deletion_withdrawal ON deletion (withdrawal_id);

CREATE TABLE released_copy (
    url text NOT NULL,
    key text NOT NULL,
    object_id uuid NOT NULL,
    etag text,
    PRIMARY KEY (url, key)
);
COMMENT ON TABLE released_copy IS 'Copies of objects where they were released; no etag while the first is made.';
CREATE INDEX released_copy_object ON released_copy (object_id);

CREATE TABLE chain_head (
    chain text PRIMARY KEY,
    counter bigint NOT NULL,
    hash bytea NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON TABLE chain_head IS 'Number and newest hash of the events, and of the links of each project.';

CREATE TABLE audit_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    kind text NOT NULL,
    run_id uuid,
    project text,
    body text NOT NULL,
    version smallint NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL UNIQUE,
    login text NOT NULL DEFAULT session_user,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
);
COMMENT ON TABLE audit_event IS 'Runs, look-ups, imports, exports, releases, withdrawals; each covers the one before.';
CREATE INDEX audit_event_run ON audit_event (run_id);

CREATE TABLE audit_link (
    link_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    position bigint NOT NULL,
    batch_id bigint NOT NULL,
    attempt integer NOT NULL,
    recorded_at timestamptz NOT NULL,
    version smallint NOT NULL,
    rows integer NOT NULL,
    rows_hash bytea NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    UNIQUE (run_id, position)
);
COMMENT ON TABLE audit_link IS 'The hash chain of each run over its audit rows, one link each time rows are recorded.';
COMMENT ON COLUMN audit_link.version IS 'Which list of columns of the rows is hashed.';

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
    object_id uuid NOT NULL,
    source_version_id text,
    source_etag text NOT NULL,
    source_size bigint NOT NULL,
    destination text NOT NULL,
    destination_key text,
    destination_etag text,
    destination_size bigint,
    replaced_key text,
    replaced_etag text,
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
COMMENT ON TABLE audit IS 'One row per object and attempt, never changed; one partition per month.';
CREATE INDEX audit_run ON audit (run_id, link_id, number);
CREATE INDEX audit_object ON audit (object_id);
-- Keys are long and only compared.
CREATE INDEX audit_destination ON audit USING hash (destination_key);

CREATE TABLE text_layout (
    project_id integer NOT NULL REFERENCES project,
    label text NOT NULL,
    criteria text NOT NULL DEFAULT '',
    places jsonb NOT NULL DEFAULT '[]',
    objects integer NOT NULL DEFAULT 0,
    agreeing integer NOT NULL DEFAULT 0,
    unlearned_at timestamptz,
    PRIMARY KEY (project_id, label)
);
COMMENT ON TABLE text_layout IS 'Where images of a device showed text, and in how many objects in a row only there.';

CREATE TABLE held_object (
    scope_id integer NOT NULL REFERENCES work_scope,
    key_hash uuid NOT NULL,
    object_id uuid NOT NULL,
    encrypted_key bytea NOT NULL,
    project_id integer NOT NULL REFERENCES project,
    source text NOT NULL,
    destination text NOT NULL,
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
    PRIMARY KEY (scope_id, key_hash)
);
COMMENT ON TABLE held_object IS 'Objects whose newest attempt was quarantined: one row per object.';
COMMENT ON COLUMN held_object.source IS 'The source of the run that held it; its key begins with the prefix of that.';
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
    scope_id integer NOT NULL REFERENCES work_scope,
    key_hash uuid NOT NULL,
    etag text NOT NULL,
    decision_id bigint NOT NULL REFERENCES decision,
    outcome text,
    run_id uuid,
    link_id bigint,
    number integer,
    PRIMARY KEY (scope_id, key_hash, decision_id)
);
COMMENT ON TABLE decided_object IS 'The objects of each decision, and the audit row of their outcome under it.';
CREATE INDEX decided_object_decision ON decided_object (decision_id);

CREATE TABLE index_source (
    source_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project,
    store text NOT NULL,
    prefix text NOT NULL,
    has_objects boolean NOT NULL DEFAULT false,
    UNIQUE (project_id, store, prefix)
);
COMMENT ON TABLE index_source IS 'The prefixes that were indexed; the row without a prefix is the store itself.';
COMMENT ON COLUMN index_source.has_objects IS 'Whether objects were ever indexed under this prefix.';

CREATE TABLE index_attributes (
    attributes_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id integer NOT NULL REFERENCES index_source,
    attributes jsonb NOT NULL,
    UNIQUE (store_id, attributes)
);
COMMENT ON TABLE index_attributes IS 'The different sets of open attributes that objects of the source have.';

CREATE TABLE index_series (
    series_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id integer NOT NULL REFERENCES index_source,
    -- The first 128 bits of the keyed hashes of the identifiers, as in mapping.
    patient uuid NOT NULL,
    issuer uuid NOT NULL,
    accession uuid NOT NULL,
    study uuid NOT NULL,
    series uuid NOT NULL,
    attributes_number bigint NOT NULL REFERENCES index_attributes,
    -- Counted after each batch, each withdrawal and each indexing, for the page of the archive.
    objects bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    deidentified bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    excluded bigint NOT NULL DEFAULT 0,
    UNIQUE (store_id, patient, issuer, accession, study, series, attributes_number)
) WITH (fillfactor = 80);
COMMENT ON TABLE index_series IS 'Identifiers and attributes that objects of the source share, once.';
CREATE INDEX index_series_accession ON index_series (store_id, accession);
CREATE INDEX index_series_study ON index_series (store_id, study);
CREATE INDEX index_series_series ON index_series (store_id, series);
-- Without it each set of attributes that is deleted costs a look at all series.
CREATE INDEX index_series_attributes ON index_series (attributes_number);

CREATE TABLE index_object (
    -- Columns of a fixed length come first, and version_id is not null: a row is 20 bytes shorter.
    size bigint NOT NULL,
    series_number bigint NOT NULL,
    -- Null until it was listed by the indexer: a run knows it of no object.
    last_modified timestamptz,
    store_id integer NOT NULL,
    source_id integer NOT NULL,
    key_hash uuid NOT NULL,
    instance uuid NOT NULL,
    encrypted_key bytea NOT NULL,
    etag text NOT NULL,
    version_id text NOT NULL DEFAULT '',
    PRIMARY KEY (store_id, key_hash)
);
COMMENT ON TABLE index_object IS 'The objects of the source, one row per key. No foreign keys: rows come in bulk.';
CREATE INDEX index_object_series ON index_object (series_number);

CREATE TABLE cohort_line (
    run_id uuid NOT NULL REFERENCES run,
    number integer NOT NULL,
    status text NOT NULL CHECK (status IN ('found', 'absent', 'ambiguous')),
    objects bigint NOT NULL,
    PRIMARY KEY (run_id, number)
);
COMMENT ON TABLE cohort_line IS 'The answer to each line of the cohort list of a run; the list itself is not stored.';

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END
$body$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_link FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON recipe FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_link FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON chain_head FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER no_delete BEFORE DELETE ON chain_head FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER only_advance BEFORE UPDATE ON chain_head FOR EACH ROW
    WHEN (NEW.chain <> OLD.chain OR NEW.counter <> OLD.counter + 1) EXECUTE FUNCTION audit_is_append_only();

-- The last attempt at each object of some runs: the one definition that reports, pages and release use. The instant
-- from which the runs can have rows leaves out the partitions of earlier months. PostgreSQL inlines the function.
CREATE FUNCTION last_attempts(runs uuid[], since timestamptz) RETURNS SETOF audit LANGUAGE sql STABLE AS $body$
    SELECT DISTINCT ON (run_id, batch_id, item) * FROM audit WHERE run_id = ANY (runs) AND recorded_at >= since
    ORDER BY run_id, batch_id, item, attempt DESC, link_id DESC, number DESC
$body$;

-- Creates the partition of a month for a writer that owns nothing. The table is created apart and then attached, which
-- unlike CREATE TABLE ... PARTITION OF does not block those who read and write other months.
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

-- Originals are returned only against an event that another, committed transaction recorded: a transaction that is
-- rolled back has read nothing. The event says what is asked, and exactly that is returned. Of a look-up by originals
-- it holds a salted digest, and no digest that an original could be tested against later: the salt is not stored.
CREATE FUNCTION reidentify(event bigint, kinds text[], keyed_hashes bytea[], pseudonyms text[], salt bytea)
    RETURNS TABLE (kind text, keyed_hash bytea, pseudonym text, original bytea, key_id text, row_check bytea)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $body$
DECLARE
    allowed integer;
    event_kind text;
    body jsonb;
    is_recorded boolean;
BEGIN
    SELECT p.project_id, e.kind, e.body::jsonb INTO allowed, event_kind, body
    FROM audit_event e JOIN project p ON p.name = e.project
    WHERE e.event_id = event AND e.kind IN ('lookup', 'export') AND e.login = session_user
      AND e.transaction_id <> pg_current_xact_id() AND e.recorded_at > now() - interval '1 hour';
    IF allowed IS NULL THEN
        RAISE EXCEPTION 'no committed look-up event of this login' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF event_kind = 'export' THEN
        is_recorded := keyed_hashes IS NULL AND pseudonyms IS NULL
            AND body -> 'kinds' = coalesce(to_jsonb(kinds), '"all"'::jsonb);
    ELSIF pseudonyms IS NOT NULL THEN
        is_recorded := keyed_hashes IS NULL AND kinds = ARRAY[body ->> 'kind']
            AND body -> 'pseudonyms' = to_jsonb(pseudonyms);
    ELSE
        is_recorded := keyed_hashes IS NOT NULL AND kinds = ARRAY[body ->> 'kind']
            AND (body ->> 'count')::bigint = cardinality(keyed_hashes)
            AND body ->> 'digest' = (SELECT encode(sha256(salt || string_agg(w.hash, ''::bytea ORDER BY w.n)), 'hex')
                                     FROM unnest(keyed_hashes) WITH ORDINALITY w (hash, n));
    END IF;
    IF is_recorded IS NOT TRUE THEN
        RAISE EXCEPTION 'the event records another look-up' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
        SELECT m.kind, m.keyed_hash, m.pseudonym, m.original, m.key_id, m.row_check FROM mapping m
        WHERE m.project_id = allowed AND (
            (keyed_hashes IS NULL AND pseudonyms IS NULL AND (kinds IS NULL OR m.kind = ANY (kinds)))
            OR (m.kind = ANY (kinds) AND m.keyed_hash = ANY (keyed_hashes))
            OR (m.kind = ANY (kinds) AND m.pseudonym = ANY (pseudonyms)));
END
$body$;
REVOKE ALL ON FUNCTION reidentify(bigint, text[], bytea[], text[], bytea) FROM PUBLIC;

-- A new project, scope or batch is not in the statistics, which are then as good as a proof that it has no rows: the
-- planner reads all its rows for each key. Without statistics it expects a part of the table.
DO $body$
DECLARE
    first_column record;
BEGIN
    FOR first_column IN
        SELECT DISTINCT a.attrelid::regclass AS relation, a.attname AS name
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE c.relnamespace = current_schema()::regnamespace AND i.indnatts > 1
            AND a.attname IN ('project_id', 'scope_id', 'store_id', 'batch_id')
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', first_column.relation, first_column.name);
    END LOOP;
END
$body$;
"""

_DOWN = """
DROP FUNCTION reidentify(bigint, text[], bytea[], text[], bytea);
DROP FUNCTION ensure_audit_partition(timestamptz);
DROP FUNCTION last_attempts(uuid[], timestamptz);
DROP TABLE cohort_line, index_object, index_series, index_attributes, index_source;
DROP TABLE text_layout, held_object, decided_object, decision;
DROP TABLE audit, audit_link, audit_event, chain_head, done_container, released_copy, deletion, withdrawn, withdrawal,
    write_intent, batch_item, batch, run, processed_object, source_series, rules, work_scope, recipe, mapping,
    patient_term, archive_word, archive_word_snapshot, patient, key_check, secret, project;
DROP FUNCTION audit_is_append_only();
"""


def upgrade() -> None:
    """Create everything in an empty schema."""
    op.get_bind().exec_driver_sql(_UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drop everything, with all data."""
    op.get_bind().exec_driver_sql(_DOWN, execution_options={"no_parameters": True})
