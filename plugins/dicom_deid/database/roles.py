"""Database roles, each with no more privileges than it needs.

- `{schema}_owner` owns the schema: migrations, import, rotation, erasure.
- `{schema}_writer` is for runs and withdrawals: it creates pseudonyms, plans, and appends to the audit; it reads no
  original of the mapping, and changes no row of mapping or audit. It reads and adds the encrypted search terms of
  patients.
- `{schema}_reader` reads runs, plans and the audit; of the mapping only kinds and counts.
- `{schema}_reviewer` reads what a reader reads, and records decisions about quarantined objects.
- `{schema}_reidentifier` looks originals up, after it has recorded a reason for each look-up.

They cannot log in; logins are made members of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.exceptions import ConfigurationError

ROLES = ("owner", "writer", "reader", "reviewer", "reidentifier")

_EVENT_COLUMNS = "recorded_at, kind, run_id, project, body, version, previous, hash"

_HEAD = "SELECT, INSERT, UPDATE ON chain_head"

_READ = (
    "SELECT ON project, key_check, recipe, alembic_version, work_scope, rules, source_series, processed_object, run, "
    "batch, batch_item, write_intent, withdrawal, withdrawn, deletion, released_copy, done_container, secret, "
    "chain_head, audit_event, "
    "audit_link, audit, held_object, decision, decided_object, index_source, index_attributes, index_series, "
    "index_object, cohort_line, text_layout"
)

_GRANTS: Mapping[str, tuple[str, ...]] = {
    "writer": (
        _READ,
        "INSERT ON project, key_check, recipe, work_scope, rules, patient, source_series, processed_object, run",
        "INSERT ON batch, batch_item, write_intent, withdrawal, withdrawn, deletion, released_copy, secret, mapping",
        "INSERT ON audit_link, audit, index_source, index_attributes, index_series, index_object, cohort_line",
        "UPDATE ON index_object",
        "UPDATE (has_objects) ON index_source",
        "UPDATE (objects, bytes, deidentified, quarantined, excluded) ON index_series",
        "UPDATE (patient_ids, accession_numbers, study_ids) ON project",
        "SELECT ON patient",
        "SELECT, INSERT ON patient_term, archive_word, archive_word_snapshot",
        "UPDATE (is_name) ON archive_word",
        "UPDATE (taken_at) ON archive_word_snapshot",
        "DELETE ON archive_word_snapshot",
        "SELECT (project_id, kind, keyed_hash, pseudonym, is_unique, row_check) ON mapping",
        "UPDATE ON processed_object, run, batch, batch_item, write_intent, withdrawal, released_copy, held_object",
        "UPDATE ON decided_object",
        "INSERT, DELETE ON held_object",
        "INSERT ON decided_object",
        "INSERT, UPDATE ON text_layout, done_container",
        "DELETE ON batch, batch_item, write_intent, withdrawn, deletion, released_copy, index_series, index_object",
        "DELETE ON cohort_line",
        f"INSERT ({_EVENT_COLUMNS}) ON audit_event",
        _HEAD,
        "USAGE ON SEQUENCE audit_link_link_id_seq",
        "EXECUTE ON FUNCTION ensure_audit_partition(timestamptz)",
    ),
    "reader": (
        _READ,
        "SELECT (project_id, kind, created_at) ON mapping",
    ),
    "reviewer": (
        _READ,
        _HEAD,
        "SELECT ON archive_word",
        f"INSERT ({_EVENT_COLUMNS}) ON audit_event",
        "INSERT ON decision, decided_object",
        "DELETE ON decided_object",
        "UPDATE ON decided_object",
        "UPDATE (approved_by, approved_at, revoked_by, revoked_at) ON decision",
        "UPDATE (four_eyes) ON project",
    ),
    "reidentifier": (
        "SELECT ON project, key_check, alembic_version, work_scope, rules, run, processed_object, secret",
        "SELECT ON audit_event, audit",
        f"INSERT ({_EVENT_COLUMNS}) ON audit_event",
        _HEAD,
        "EXECUTE ON FUNCTION reidentify(bigint, text[], bytea[], text[], bytea)",
    ),
}


def role_names(schema: str) -> dict[str, str]:
    """Return the names of the roles of a schema."""
    return {role: f"{schema}_{role}" for role in ROLES}


def role_statements(schema: str, database_name: str) -> list[str]:
    """Return the SQL that makes the roles and gives them what they need. It may be run again at any time."""
    names = role_names(schema)
    statements = [
        f"DO $$ BEGIN CREATE ROLE {name} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        for name in names.values()
    ]
    statements += [
        _join(names["owner"]),
        f'GRANT CREATE, TEMPORARY ON DATABASE "{database_name}" TO {names["owner"]}',
        f'GRANT TEMPORARY ON DATABASE "{database_name}" TO {names["writer"]}',
        _hand_over(schema, names["owner"]),
        f"SET search_path TO {schema}, pg_temp",
        *(f"GRANT USAGE ON SCHEMA {schema} TO {names[role]}" for role in ROLES[1:]),
    ]
    statements += [f"GRANT {grant} TO {names[role]}" for role, grants in _GRANTS.items() for grant in grants]
    return statements


def _join(owner: str) -> str:
    """Return SQL that makes the login a member of `owner`, which handing a table over takes."""
    return f"""DO $$ BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN GRANT {owner} TO CURRENT_USER; END IF;
END $$"""  # noqa: S608


def _hand_over(schema: str, owner: str) -> str:
    """Return SQL that makes `owner` own the schema and what is in it."""
    return f"""DO $$ DECLARE each record; BEGIN
    EXECUTE 'ALTER SCHEMA {schema} OWNER TO {owner}';
    FOR each IN SELECT oid::regclass AS name FROM pg_class
        WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO {owner}', each.name);
    END LOOP;
    FOR each IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO {owner}', each.name);
    END LOOP;
END $$"""  # noqa: S608


def missing_rights(connection: DatabaseConnection, role: str) -> list[str]:
    """Return the table privileges of a role that the login does not have, such as ``INSERT ON audit``."""
    wanted = [
        (privilege, table)
        for privileges, tables in re.findall(r"^([A-Z, ]+) ON ([a-z_, ]+)$", "\n".join(_GRANTS[role]), re.MULTILINE)
        for privilege in privileges.split(", ")
        for table in tables.split(", ")
    ]
    rows = connection.query(
        "checking the rights of the login",
        "SELECT privilege, name FROM unnest(%s::text[], %s::text[]) AS wanted (privilege, name) "
        "WHERE NOT has_table_privilege(name, privilege)",
        ([privilege for privilege, _ in wanted], [table for _, table in wanted]),
    )
    return [f"{privilege} ON {table}" for privilege, table in rows]


def create_roles(connection: DatabaseConnection, members: Mapping[str, str] | None = None) -> None:
    """Make the roles, hand the schema to its owner, and grant.

    Parameters
    ----------
    database
        A login that may create roles (a superuser, or CREATEROLE and the schema's owner).
    members
        Logins by the role (`writer`, ...) that they become members of.

    Raises
    ------
    ConfigurationError
        A role or a member is unknown, or the login may not create roles.
    """
    names = role_names(connection.schema)
    unknown = set(members or {}) - set(ROLES)
    if unknown:
        raise ConfigurationError(f"There is no role {min(unknown)!r}; there are {', '.join(ROLES)}.")
    name = str(connection.query("making roles", "SELECT current_database()")[0][0])
    with connection.transaction("making roles"):
        for statement in role_statements(connection.schema, name):
            connection.query("making roles", statement)
        for role, login in (members or {}).items():
            if not connection.query("making roles", "SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)):
                raise ConfigurationError(f"PostgreSQL knows no login {login!r}: make it first (CREATE ROLE ... LOGIN).")
            quoted = connection.query("making roles", "SELECT quote_ident(%s)", (login,))[0][0]
            connection.query("making roles", f"GRANT {names[role]} TO {quoted}")
