"""Each role can do its work, and nothing else."""

from __future__ import annotations

import io
import uuid
from urllib.parse import urlsplit, urlunsplit

import pytest

from dicom_deid.database import AccessReason, Database, Intent, ObjectIdentity, WithdrawalRequest, schema
from dicom_deid.database.roles import ROLES, create_roles, role_names
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind

ASKED = AccessReason(person="Dr Strand", reason="adverse event")


@pytest.fixture
def logins(postgres_url, keys):
    """A store for each role, opened by a login that is a member of nothing else. Roles belong to the whole server."""
    name_of_schema = f"s{uuid.uuid4().hex[:8]}"
    stores = {}
    with Database.connect(postgres_url, schema=name_of_schema, keys=keys) as admin:
        admin.upgrade()
        names = {role: f"{name_of_schema}_login_{role}" for role in ROLES}
        for name in names.values():
            admin.connection.query("test", f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
        create_roles(admin.connection, {role: names[role] for role in ROLES})
        create_roles(admin.connection)
        parts = urlsplit(postgres_url)
        for role, name in names.items():
            place = f"{name}:p@{parts.hostname}:{parts.port}"
            stores[role] = Database.connect(urlunsplit(parts._replace(netloc=place)), schema=name_of_schema, keys=keys)
        yield stores
        for each in stores.values():
            each.close()
        for name in [*names.values(), *role_names(name_of_schema).values()]:
            admin.connection.query("test", f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def denied(database: Database, sql: str) -> None:
    with pytest.raises(ConfigurationError, match="may not do this"):
        database.connection.query("test", sql)


def test_each_role_does_its_work_and_nothing_else(logins, steps):
    owner, writer, reader, _, reidentifier = (logins[role] for role in ROLES)
    identifiers = [Identifier(IdentifierKind.PATIENT_ID, "A"), Identifier(IdentifierKind.UID, "1.2")]

    # The writer runs a whole run, the first of all included.
    writer.upgrade()
    project = writer.project("p")
    found = writer.mapping(project).resolve(identifiers)
    steps.database = writer
    run = steps.begin()
    steps.work(writer.plan(run, steps.listing(5)).batches)
    writer.finish_run(run, "succeeded")
    assert writer.report(run).outcomes == {"deidentified": 5}
    assert writer.prune(0) == 5
    writer.connection.query("test", "SELECT ensure_audit_partition('2032-01-01')")
    for sql in (
        "SELECT original FROM mapping",
        "UPDATE mapping SET pseudonym = 'x'",
        "DELETE FROM mapping",
        "UPDATE project SET org_root = '1.2'",
        "UPDATE audit SET outcome = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit_link SET rows = 0",
        "DELETE FROM audit_event",
        "DELETE FROM chain_head",
        "UPDATE chain_head SET counter = counter - 1",
        "UPDATE recipe SET text = ''",
        "SELECT * FROM reidentify(1, NULL, NULL, NULL, NULL)",
        "DROP TABLE audit",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        (
            "INSERT INTO audit_event (recorded_at, kind, body, version, previous, hash, login) "
            "VALUES (now(), 'x', '', 1, '', '', 'y')"
        ),
    ):
        denied(writer, sql)
    with pytest.raises(ConfigurationError, match="may not do this"):
        writer.crosswalk(project).originals_of(IdentifierKind.PATIENT_ID, [found[identifiers[0]]], ASKED)

    # The reader sees what was done, and verifies it.
    assert reader.report(run).outcomes == {"deidentified": 5}
    assert reader.verify().problems == []
    assert reader.queries.crosswalk_sizes() == {"p": {"PatientID": 1, "UID": 1}}
    for sql in (
        "SELECT pseudonym FROM mapping",
        "SELECT original FROM mapping",
        "INSERT INTO processed_object (scope_id, key_hash, encrypted_key) VALUES (1, gen_random_uuid(), '')",
        "DELETE FROM audit",
        "UPDATE run SET state = 'x'",
        "SELECT * FROM reidentify(1, NULL, NULL, NULL, NULL)",
    ):
        denied(reader, sql)

    # The re-identifier looks up, and leaves a trace; the mapping itself stays closed.
    crosswalk = reidentifier.crosswalk(reidentifier.project("p", create=False))
    pairs = crosswalk.originals_of(IdentifierKind.PATIENT_ID, [found[identifiers[0]]], ASKED)
    assert [pair.original for pair in pairs] == [identifiers[0]]
    assert len(list(crosswalk.export(ASKED))) == 2
    for sql in (
        "SELECT pseudonym FROM mapping",
        "INSERT INTO mapping VALUES (1, 'UID', '', 'x', '', 'k1', true, NULL, '')",
        "DELETE FROM audit_event",
        "UPDATE run SET state = 'x'",
        "SELECT * FROM reidentify(99999, NULL, NULL, NULL, NULL)",
    ):
        denied(reidentifier, sql)

    # The owner migrates, imports and rotates.
    assert owner.import_crosswalk(project, io.StringIO("kind,original,pseudonym\nUID,1.9,2.25.7\n"), ASKED) == 1
    assert list(owner.rotate(ASKED)) == [0]
    assert reader.verify().problems == []


def test_originals_cannot_be_read_against_an_event_that_is_rolled_back(logins):
    # BEGIN; record; read; ROLLBACK would leave no trace: the function wants a committed event.
    writer, reidentifier = logins["writer"], logins["reidentifier"]
    writer.mapping(writer.project("p")).resolve([Identifier(IdentifierKind.PATIENT_ID, "A")])
    crosswalk = reidentifier.crosswalk(reidentifier.project("p", create=False))
    for first in ("SELECT 1", "SAVEPOINT inner_one"):

        def look_up_and_roll_back(first: str = first) -> None:
            with reidentifier.connection.transaction("test"):
                reidentifier.connection.query("test", first)
                crosswalk.originals_of(IdentifierKind.PATIENT_ID, ["PAT1"], ASKED)
                raise RuntimeError("rolled back after reading")

        with pytest.raises(ConfigurationError, match="may not do this"):
            look_up_and_roll_back()


def test_roles_need_no_superuser(postgres_url, keys):
    # A managed server gives nobody superuser: CREATEROLE and owning the database must do.
    name = f"r{uuid.uuid4().hex[:8]}"
    with Database.connect(postgres_url) as admin:
        database_name = admin.connection.query("test", "SELECT current_database()")[0][0]
        admin.connection.query(
            "test", f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'p'; ALTER DATABASE {database_name} OWNER TO {name}"
        )
        parts = urlsplit(postgres_url)
        place = f"{name}:p@{parts.hostname}:{parts.port}"
        with Database.connect(urlunsplit(parts._replace(netloc=place)), schema=name, keys=keys) as database:
            database.upgrade()
            create_roles(database.connection)
            create_roles(database.connection)
            owner = database.connection.query("test", "SELECT tableowner FROM pg_tables WHERE tablename = 'audit'")
            assert owner == [(f"{name}_owner",)]
            schema.downgrade(database.connection, "base")
            database.upgrade()
            create_roles(database.connection)
            database.mapping(database.project("p")).resolve([Identifier(IdentifierKind.UID, "1.2")])
        admin.connection.query("test", f"ALTER DATABASE {database_name} OWNER TO CURRENT_USER")
        for role in [*role_names(name).values(), name]:
            admin.connection.query("test", f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_an_unknown_role_is_refused(database):
    with pytest.raises(ConfigurationError, match="no role 'admin'"):
        create_roles(database.connection, {"admin": "someone"})


def test_a_member_that_postgresql_does_not_know_is_named(database):
    """Catches a message that leaves an administrator to guess what UndefinedObject means."""
    with pytest.raises(ConfigurationError, match="no login 'nobody-here'"):
        create_roles(database.connection, {"writer": "nobody-here"})


def test_the_writer_withdraws_and_the_owner_erases(logins, steps):
    owner, writer, reader = logins["owner"], logins["writer"], logins["reader"]
    project = writer.project("p")
    patient = Identifier(IdentifierKind.PATIENT_ID, "A")
    writer.mapping(project).resolve([patient], {patient: "A"})
    steps.database = writer
    run = steps.begin()
    lease = writer.lease(writer.plan(run, steps.listing(2)).batches[0].batch_id, "w")
    items = lease.items()
    identity = ObjectIdentity("A", "acc", "1.2", "1.2.3", "1.2.3.4")
    intents = [Intent(item=item, destination_key=f"d/{item.item_id}", identity=identity) for item in items]
    assert lease.intend(intents) == set()
    lease.record([steps.row(item) for item in items])
    lease.finish()
    writer.finish_run(run, "succeeded")
    writer.store_recipe("ab" * 32, "desktop", "KEEP ALL")
    with writer.releasing("p", "s3://released", writer.queries.written(writer.run(run))) as copies:
        for each in copies:
            each.etag = "e"
    request = WithdrawalRequest(patients=["A"])
    with pytest.raises(ConfigurationError, match="may not do this"):
        reader.withdraw(reader.project("p", create=False), request, ASKED)
    begun = writer.withdraw(project, request, ASKED)
    assert begun.deletions == {"destination": 2, "release": 2}
    writer.record_withdrawn(project, writer.pending_deletions(begun.withdrawal_id))
    writer.finish_withdrawal(project, begun.withdrawal_id)
    writer.reconcile("s3://out/", [], ASKED, confirm=lambda found: found, repair=True)
    with pytest.raises(ConfigurationError, match="may not do this"):
        writer.erase_patients(project, ["A"], ASKED)
    assert owner.erase_patients(owner.project("p"), ["A"], ASKED) == 1
    with pytest.raises(ConfigurationError, match="may not do this"):
        writer.delete_project(project, ASKED)
    assert owner.delete_project(owner.project("p"), ASKED) == 0
    for login in (owner, writer, reader):
        assert login.verify().problems == []
