"""Held objects, from the run that quarantined them to their release by decisions."""

from __future__ import annotations

import io
import json
import sys
from collections import OrderedDict

import numpy as np
import psycopg2
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tests.support.held import COLUMNS, ROWS, Device, held_image, held_images
from tests.support.images import planted_image
from tests.support.runs import RunEnvironment, cursor, small_ct

from dicom_deid.database import AccessReason, Database, WithdrawalRequest
from dicom_deid.database.quarantine import (
    SORT_COLUMNS,
    DecisionAction,
    HeldGroup,
    approve_decision,
    count_held,
    list_decisions,
    list_held_groups,
    list_held_objects,
    list_released,
    pending_reviews,
    project_rules,
    record_decision,
    revoke_decision,
    set_four_eyes,
)
from dicom_deid.engine.pixels import CANNOT_BE_SEARCHED, SHOWS_TEXT
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.decisions import make_decision
from dicom_deid.pipeline.planning import plan_review
from dicom_deid.pipeline.withdrawal import continue_withdrawal
from dicom_deid.recipe.filters import Rectangle
from dicom_deid.sandbox.samples import sample_files

CT = "1.2.840.10008.5.1.4.1.1.2"
STRICT = Settings(residuals="quarantine", pixel_risk="quarantine", documents="quarantine")


@pytest.fixture
def place(s3, s3_bucket, postgres_url) -> RunEnvironment:
    return RunEnvironment(s3, s3_bucket, postgres_url)


def held(place: RunEnvironment, **filters: str) -> list[HeldGroup]:
    with place.connections.open_database() as database:
        return list_held_groups(database.connection, filters)


def decide(place: RunEnvironment, group: HeldGroup, action: str, **options: object) -> int:
    new = make_decision(group, DecisionAction(action), person="ada", **options)
    with place.connections.open_database() as database:
        return record_decision(database.connection, database.chain_key, new)


def review(place: RunEnvironment) -> dict[str, tuple[str, str | None]]:
    """Process all decided objects and return their outcomes."""
    outcomes = {}
    with place.connections.open_database() as database:
        runs = pending_reviews(database.connection)
    for each in runs:
        planned = plan_review(place.connections, each.run_id, triggered_by="ada")
        outcomes |= place.work(planned.configuration, planned).outcomes
    return outcomes


def pixels(data: bytes) -> NDArray[np.generic]:
    return pydicom.dcmread(io.BytesIO(data)).pixel_array


def test_each_held_object_is_counted_once(place):
    """Several attempts at an object, under one recipe or two, are one held object."""
    place.put(held_images(Device("ACME", "Echo 1"), patients=2, images=3))
    place.run(settings=STRICT)
    place.run(settings=STRICT, retry_quarantined=True)
    place.run(settings=STRICT.replace(max_inflated_bytes=2**20))
    (group,) = held(place)
    assert (group.objects, group.studies, group.patients) == (6, 2, 2)
    assert (group.reason, group.modality, group.manufacturer, group.model) == ("pixel-risk", "US", "ACME", "Echo 1")
    assert (group.software, group.rows, group.columns) == ("1.0", 64, 96)


def test_groups_are_filtered_and_sorted(place):
    place.put(held_images(Device("ACME", "Echo 1"), patients=1, images=1))
    place.put(held_images(Device("ACME", "Echo 2"), patients=1, images=3))
    place.run(settings=STRICT)
    assert [group.model for group in held(place)] == ["Echo 2", "Echo 1"]
    assert [group.model for group in held(place, model="echo 1", reason="pixel-risk")] == ["Echo 1"]
    assert held(place, manufacturer="other") == []
    with place.connections.open_database() as database:
        assert count_held(database.connection, {"modality": "US"}) == (2, 4, 0)
        for sort in SORT_COLUMNS:
            assert len(list_held_groups(database.connection, {}, sort=sort)) == 2


def test_names_are_not_stored_as_device(place):
    """A technician who types the patient's name into a device attribute."""
    place.put({"a.dcm": held_image(Device("Doe's scanner", "Echo"), name="Doe^John", patient_id="4711")})
    place.run(settings=STRICT)
    (group,) = held(place)
    assert (group.manufacturer, group.model) == ("", "Echo")
    with place.connections.open_database() as database:
        rows = database.connection.query("reading", "SELECT h::text FROM held_object h")
    assert "Doe" not in str(rows)
    assert "4711" not in str(rows)


def test_a_mask_for_one_object(place):
    """Only that object is released, blank inside the mask and unchanged outside."""
    sources = held_images(Device("ACME", "Echo 1"), patients=1, images=2)
    place.put(sources)
    place.run(settings=STRICT)
    (group,) = held(place)
    with place.connections.open_database() as database:
        first, _ = list_held_objects(database.connection, {"group_id": group.group_id})
    decide(
        place,
        group,
        "mask",
        rectangles=[Rectangle(0, 0, 96, 8)],
        objects=[(first.link_id, first.number)],
        note="banner",
    )
    outcomes = review(place)
    assert [outcome for outcome, _ in outcomes.values()] == ["deidentified"]
    ((key, _),) = outcomes.items()
    (written,) = place.get().values()
    before, after = pixels(sources[key]), pixels(written)
    assert not after[:8].any()
    assert (after[8:] == before[8:]).all()
    (left,) = held(place)
    assert (left.objects, left.decided) == (1, 0)
    assert review(place) == {}


def test_a_device_rule_releases_the_group_and_later_objects(place):
    place.put(held_images(Device("ACME", "Echo 1"), patients=2, images=2))
    place.put(held_images(Device("ACME", "Echo 2"), patients=1, images=1))
    place.run(settings=STRICT)
    group = held(place, model="Echo 1")[0]
    decide(place, group, "mask", rectangles=[Rectangle(0, 0, 96, 8)], is_rule=True)
    assert set(review(place).values()) == {("deidentified", None)}
    place.put({"later.dcm": held_image(Device("ACME", "Echo 1"))})
    later = place.run(settings=STRICT)
    assert later.outcomes["later.dcm"] == ("deidentified", None)
    assert [left.model for left in held(place)] == ["Echo 2"]
    assert all(not pixels(data)[:8].any() for data in place.get().values())


def test_new_text_outside_a_mask_is_held_again(place):
    """The device moves its banner: the objects are not released under the old mask."""

    def image(seed: int) -> tuple[bytes, list[tuple[int, int, int, int]]]:
        planted = planted_image(seed, rows=240, columns=320, lines=1)
        dataset = planted.dataset
        dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = "ACME", "Echo 1", "1"
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue(), planted.boxes

    settings = STRICT.replace(residuals="off")
    data, boxes = image(1)
    place.put({"a.dcm": data})
    place.run(settings=settings)
    mask = [Rectangle(max(left - 4, 0), max(top - 4, 0), right + 4, bottom + 4) for left, top, right, bottom in boxes]
    decide(place, held(place)[0], "mask", rectangles=mask, is_rule=True)
    assert review(place) == {"a.dcm": ("deidentified", None)}
    place.put({"b.dcm": image(2)[0]})
    assert place.run(settings=settings).outcomes["b.dcm"] == ("quarantined", "pixel-risk")
    (group,) = held(place)
    assert group.element == SHOWS_TEXT
    decide(place, group, "mask", rectangles=[Rectangle(0, 0, 320, 240)])
    assert review(place) == {"b.dcm": ("deidentified", None)}


BANNER = [Rectangle(0, 0, 96, 8)]
TEXT = "ROE JANE 4711"
BELOW = Rectangle(0, 8, 96, 64)


def held_with_text(place: RunEnvironment, **settings: object) -> HeldGroup:
    """Hold two images of a device; the second shows text below the banner."""
    device = Device("ACME", "Echo 1")
    place.put({"calm.dcm": held_image(device), "text.dcm": held_image(device, number=2, text=TEXT)})
    place.run(settings=STRICT.replace(**settings))
    return held(place)[0]


@pytest.mark.parametrize("action", ["mask", "allow"])
def test_text_that_a_decision_about_a_group_leaves_visible_is_held_again(place, action):
    """Not every object of the group was looked at. The one that is held again can be released as it is."""
    rectangles = BANNER if action == "mask" else []
    decide(place, held_with_text(place), action, rectangles=rectangles)
    assert review(place) == {"calm.dcm": ("deidentified", None), "text.dcm": ("quarantined", "pixel-risk")}
    (group,) = held(place)
    assert group.element == SHOWS_TEXT
    with place.connections.open_database() as database:
        ((link, number),) = [(each.link_id, each.number) for each in list_held_objects(database.connection, {})]
    decide(place, group, action, rectangles=rectangles, objects=[(link, number)])
    assert review(place) == {"text.dcm": ("deidentified", None)}


def with_overlay(data: bytes, text: str) -> bytes:
    """Return an image with an overlay plane that shows a text below the banner."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    plane = Image.new("1", (COLUMNS, ROWS))
    ImageDraw.Draw(plane).text((4, 24), text, fill=1, font=ImageFont.load_default(16))
    values = {0x10: ("US", ROWS), 0x11: ("US", COLUMNS), 0x40: ("CS", "G"), 0x50: ("SS", [1, 1]), 0x100: ("US", 1)}
    bits = np.packbits(np.asarray(plane), bitorder="little").tobytes()
    for element, (vr, value) in (values | {0x102: ("US", 0), 0x3000: ("OW", bits)}).items():
        dataset.add_new(0x60000000 + element, vr, value)
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


@pytest.mark.parametrize("action", ["mask", "allow"])
def test_text_of_an_overlay_that_a_decision_leaves_visible_is_held_again(place, action):
    """Catches a search of the pixels alone."""
    device = Device("ACME", "Echo 1")
    text = with_overlay(held_image(device, number=2), TEXT)
    place.put({"calm.dcm": held_image(device), "text.dcm": text})
    place.run(settings=STRICT)
    (group,) = held(place)
    decide(place, group, action, rectangles=BANNER if action == "mask" else [])
    assert review(place) == {"calm.dcm": ("deidentified", None), "text.dcm": ("quarantined", "pixel-risk")}
    (group,) = held(place)
    assert group.element == "(6000,3000) shows text outside the regions of the filters"
    decide(place, group, action, rectangles=[BELOW] if action == "mask" else [])
    assert review(place) == {"text.dcm": ("deidentified", None)}


def test_what_a_search_has_found_can_be_allowed_for_the_group(place):
    """The reviewer knows that they show text; a rule needs its places."""
    decide(place, held_with_text(place), "mask", rectangles=BANNER)
    review(place)
    (group,) = held(place)
    with pytest.raises(ConfigurationError, match="draw rectangles around the text"):
        decide(place, group, "allow", is_rule=True)
    decide(place, group, "allow")
    assert review(place) == {"text.dcm": ("deidentified", None)}


def test_a_rule_names_the_places_that_may_show_text(place):
    """A mark that the device draws in each image does not hold each image, and text elsewhere does."""
    decide(place, held_with_text(place), "mask", rectangles=BANNER, text=[BELOW], is_rule=True)
    assert set(review(place).values()) == {("deidentified", None)}
    written = [pixels(data) for data in place.get().values()]
    assert all(not each[:8].any() and each[8:].all() for each in written)
    place.put({"later.dcm": held_image(Device("ACME", "Echo 1"), number=3, text=TEXT)})
    assert place.run(settings=STRICT).outcomes["later.dcm"] == ("deidentified", None)
    with place.connections.open_database() as database:
        (decision,) = list_decisions(database.connection)
        revoke_decision(database.connection, database.chain_key, decision.decision_id, "bob")
    decide_again = {"rectangles": BANNER, "text": [Rectangle(0, 60, 96, 64)], "is_rule": True}
    place.run(settings=STRICT)
    decide(place, held(place)[0], "mask", **decide_again)
    assert sorted(set(review(place).values())) == [("deidentified", None), ("quarantined", "pixel-risk")]


def test_an_allowance_is_searched_only_where_pixels_can_be_decoded(place):
    """Pixels that cannot be searched are held for a decision about the object, which then releases them."""
    dataset = pydicom.dcmread(io.BytesIO(held_image(Device("ACME", "Echo 1"))))
    dataset.BitsAllocated = 8
    dataset.PixelData = dataset.PixelData[:-100]
    file = io.BytesIO()
    dataset.save_as(file)
    place.put({"short.dcm": file.getvalue()})
    place.run(settings=STRICT)
    decide(place, held(place)[0], "allow")
    assert review(place) == {"short.dcm": ("quarantined", "pixel-risk")}
    (group,) = held(place)
    assert group.element == CANNOT_BE_SEARCHED
    decide(place, group, "allow")
    assert review(place) == {"short.dcm": ("deidentified", None)}


@pytest.mark.parametrize("is_rule", [False, True])
def test_without_the_search_a_mask_is_applied_only_where_a_site_accepts_it(place, monkeypatch, is_rule):
    """The run is refused when it is planned; with `check_masks=none`, which is recorded, new text is released."""
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr("dicom_deid.pipeline.engine._compiled", OrderedDict())
    decide(place, held_with_text(place), "mask", rectangles=BANNER, is_rule=is_rule)
    with pytest.raises(ConfigurationError, match=r"check_masks=none.*rapidocr.*pip install .*\[ocr\]"):
        review(place)
    accepting = STRICT.replace(check_masks="none")
    assert accepting.digest != STRICT.digest
    run = place.run(settings=accepting, retry_quarantined=True)
    assert set(run.outcomes.values()) == {("deidentified", None)}
    with place.connections.open_database() as database:
        assert database.run(run.planned.run_id).request.parameters["settings"]["check_masks"] == "none"


def test_a_decision_about_one_object_needs_no_search(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    group = held_with_text(place)
    with place.connections.open_database() as database:
        objects = [(each.link_id, each.number) for each in list_held_objects(database.connection, {})]
    decide(place, group, "mask", rectangles=BANNER, objects=objects)
    assert set(review(place).values()) == {("deidentified", None)}


def test_one_decision_about_several_groups(place):
    """Groups of one reason are decided at once; a mask or a rule is about one device."""
    place.put({f"{number}.dcm": held_image(Device("ACME", f"Echo {number}"), number=number) for number in range(3)})
    place.run(settings=STRICT)
    first, second, third = held(place)
    for options in ({"action": "mask", "rectangles": [Rectangle(0, 0, 9, 9)]}, {"action": "allow", "is_rule": True}):
        with pytest.raises(ConfigurationError, match="one device"):
            decide(place, first, other_groups=[second], **options)
    decide(place, first, "allow", other_groups=[second])
    assert len(review(place)) == 2
    assert held(place) == [third]
    with place.connections.open_database() as database:
        assert [each.released for each in list_decisions(database.connection)] == [2]


@pytest.mark.timeout(900)
def test_the_images_of_the_demonstration_need_at_most_ten_decisions(place):
    """A mask for each device, and two decisions about the others: as a whole, and where a search finds text."""
    place.put({name: path.read_bytes() for name, path in sample_files()})
    place.run(settings=Settings())
    groups = held(place, reason="pixel-risk")
    of_devices = [each for each in groups if each.manufacturer and each.model]
    others = [each for each in groups if each not in of_devices]
    for each in of_devices:
        decide(place, each, "mask", rectangles=[Rectangle(0, 0, each.columns, each.rows // 10)])
    decide(place, others[0], "allow", other_groups=others[1:])
    assert sum(each.objects for each in groups) > 40
    review(place)
    first, *others = held(place, reason="pixel-risk")
    decide(place, first, "allow", other_groups=others)
    review(place)
    assert held(place, reason="pixel-risk") == []
    with place.connections.open_database() as database:
        assert len(list_decisions(database.connection)) <= 10


def test_a_device_rule_is_part_of_the_settings_digest(place):
    place.put(held_images(Device("ACME", "Echo 1"), patients=1, images=1))
    before = place.run(settings=STRICT)
    decide(place, held(place)[0], "mask", rectangles=[Rectangle(0, 0, 96, 8)], is_rule=True)
    after = place.run(settings=STRICT)
    assert before.planned.configuration.digest != after.planned.configuration.digest
    with place.connections.open_database() as database:
        request = database.run(after.planned.run_id).request
        assert request.settings_digest == after.planned.configuration.digest
        assert "coordinates 0,0,96,8" in str(request.parameters["project_rules"])


def test_a_revoked_rule_no_longer_applies_and_names_what_it_released(place):
    place.put(held_images(Device("ACME", "Echo 1"), patients=1, images=2))
    place.run(settings=STRICT)
    number = decide(place, held(place)[0], "allow", is_rule=True)
    review(place)
    with place.connections.open_database() as database:
        released = revoke_decision(database.connection, database.chain_key, number, "bob")
        assert project_rules(database.connection, "test") == ""
        assert list_released(database.connection, number) == released
        assert list_decisions(database.connection)[0].state == "revoked"
    assert {each.destination_key for each in released} == set(place.get())
    place.put({"later.dcm": held_image(Device("ACME", "Echo 1"))})
    assert place.run(settings=STRICT).outcomes["later.dcm"] == ("quarantined", "pixel-risk")


def test_later_objects_of_a_revoked_rule_are_found_and_withdrawn(place):
    """The rule released objects that no decision named; a run after the revocation holds them and forgets none."""
    place.put(held_images(Device("ACME", "Echo 1"), patients=1, images=2))
    place.run(settings=STRICT)
    number = decide(place, held(place)[0], "mask", rectangles=[Rectangle(0, 0, 96, 8)], is_rule=True)
    review(place)
    place.put({"later.dcm": held_image(Device("ACME", "Echo 1")), "ct.dcm": small_ct(1)})
    assert place.run(settings=STRICT).outcomes["later.dcm"] == ("deidentified", None)
    with place.connections.open_database() as database:
        released = revoke_decision(database.connection, database.chain_key, number, "bob")
    assert len(released) == 3
    assert set(place.run(settings=STRICT).outcomes.values()) == {("quarantined", "pixel-risk"), ("deidentified", None)}
    with place.connections.open_database() as database:
        assert list_released(database.connection, number) == released
        project, access = database.project("test"), AccessReason(person="bob", reason="revoked")
        begun = database.withdraw(project, WithdrawalRequest(decision=number), access)
    continue_withdrawal(place.connections, "test", begun.withdrawal_id)
    assert begun.objects == 3
    assert set(place.get()) & {each.destination_key for each in released} == set()
    assert len(place.get()) == 1
    with place.connections.open_database() as database:
        assert list_released(database.connection, number) == []
        assert database.verify().problems == []


def test_excluded_and_left_objects(place):
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1")), "b.dcm": held_image(Device("ACME", "Echo 2"))})
    place.run(settings=STRICT)
    decide(place, held(place, model="Echo 1")[0], "exclude")
    decide(place, held(place, model="Echo 2")[0], "hold", note="ask the vendor")
    assert review(place) == {"a.dcm": ("excluded", None)}
    (left,) = held(place)
    assert (left.model, left.decided) == ("Echo 2", 1)
    assert place.get() == {}


def test_an_image_that_can_show_a_face_is_allowed(place):
    """Under `faces=hold`; it stays marked in the audit."""
    dataset = pydicom.dcmread(io.BytesIO(held_image(Device("ACME", "CT"), modality="CT", sop_class=CT)))
    dataset.BodyPartExamined = "HEAD"
    file = io.BytesIO()
    dataset.save_as(file)
    place.put({"ct.dcm": file.getvalue()})
    place.run(settings=STRICT.replace(faces="hold"))
    (group,) = held(place, reason="face-possible")
    decide(place, group, "allow")
    assert review(place) == {"ct.dcm": ("deidentified", None)}


def test_decisions_add_up(place):
    """An object with two problems: the second decision does not undo the first."""
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"), name="Quixote^Ana", comment="seen with Quixote")})
    place.run(settings=STRICT)
    decide(place, held(place)[0], "mask", rectangles=[Rectangle(0, 0, 96, 8)])
    review(place)
    (group,) = held(place)
    assert (group.reason, group.element, group.decided) == (
        "residual-found",
        "ImageComments, original value of PatientName",
        0,
    )
    decide(place, group, "remove")
    assert review(place) == {"a.dcm": ("deidentified", None)}
    (written,) = place.get().values()
    assert not pixels(written)[:8].any()
    assert "ImageComments" not in pydicom.dcmread(io.BytesIO(written))


def test_a_rule_for_an_element(place):
    """The element of a residual is removed from all later objects."""
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"), modality="CT", sop_class=CT, comment="Ms Roe")})
    place.run(settings=STRICT)
    decide(place, held(place)[0], "remove", is_rule=True)
    assert review(place) == {"a.dcm": ("deidentified", None)}
    later = held_image(Device("Other", "X"), number=2, modality="CT", sop_class=CT, comment="again Ms Roe")
    place.put({"b.dcm": later})
    assert place.run(settings=STRICT).outcomes["b.dcm"] == ("deidentified", None)
    assert all(b"again" not in data for data in place.get().values())


def test_a_newer_decision_replaces_one_that_was_not_applied(place):
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"))})
    place.run(settings=STRICT)
    decide(place, held(place)[0], "mask", rectangles=[Rectangle(0, 0, 96, 64)])
    decide(place, held(place)[0], "mask", rectangles=[Rectangle(0, 0, 96, 8)])
    review(place)
    (written,) = place.get().values()
    assert pixels(written)[8:].any()


def test_a_second_person_has_to_approve(place):
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"))})
    place.run(settings=STRICT)
    with place.connections.open_database() as database:
        set_four_eyes(database.connection, database.chain_key, "test", True, "root")
    number = decide(place, held(place)[0], "allow", is_rule=True)
    assert review(place) == {}
    with place.connections.open_database() as database:
        with pytest.raises(ConfigurationError, match="second person"):
            approve_decision(database.connection, database.chain_key, number, "ada")
        assert project_rules(database.connection, "test") == ""
        approve_decision(database.connection, database.chain_key, number, "bob")
    assert review(place) == {"a.dcm": ("deidentified", None)}


def test_decisions_are_audit_events(place):
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"))})
    place.run(settings=STRICT)
    number = decide(place, held(place)[0], "allow", note="nothing to see")
    with place.connections.open_database() as database:
        rows = database.connection.query(
            "reading events", "SELECT project, body FROM audit_event WHERE kind = 'quarantine-decision'"
        )
        assert database.verify().problems == []
    ((project, body),) = rows
    event = json.loads(body)
    assert (project, event["decision"], event["person"], event["action"]) == ("test", number, "ada", "allow")
    assert (event["objects"], event["note"]) == (1, "nothing to see")


@pytest.mark.parametrize("value", ["A+B || C # d", "Größe", "a  b", "x,y (1)", "%header", "REMOVE ALL"])
def test_a_device_of_any_name_becomes_a_rule(place, value):
    """Text of an object that is part of the recipe language."""
    place.put({"a.dcm": held_image(Device(value, value))})
    place.run(settings=STRICT)
    decide(place, held(place)[0], "allow", is_rule=True)
    assert review(place) == {"a.dcm": ("deidentified", None)}
    place.put({"other.dcm": held_image(Device("other", "other"))})
    assert place.run(settings=STRICT).outcomes["other.dcm"] == ("quarantined", "pixel-risk")


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        ("mask", {}, "1 to"),
        ("mask", {"rectangles": [Rectangle(0, 0, 97, 8)]}, "not inside"),
        ("redact", {}, "not possible"),
        ("exclude", {"is_rule": True}, "cannot become a rule"),
        ("hold", {"note": "two\nlines"}, "one line"),
    ],
)
def test_wrong_decisions_are_refused(place, action, options, message):
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"))})
    place.run(settings=STRICT)
    with pytest.raises(ConfigurationError, match=message):
        decide(place, held(place)[0], action, **options)


def test_the_reviewer_role_is_enough(place):
    """Decisions with the grants of the role, and nothing of the mapping."""
    place.put({"a.dcm": held_image(Device("ACME", "Echo 1"))})
    place.run(settings=STRICT)
    with place.connections.open_database() as database:
        from dicom_deid.database.roles import create_roles

        create_roles(database.connection)
        chain_key = database.chain_key
        group = list_held_groups(database.connection, {})[0]
        database.connection.query("as reviewer", "SET ROLE dicom_deid_reviewer")
        new = make_decision(group, DecisionAction.ALLOW, person="ada", is_rule=True)
        number = record_decision(database.connection, chain_key, new)
        revoke_decision(database.connection, chain_key, number, "ada")
        assert isinstance(database, Database)
    with cursor(place.database) as asked:
        asked.execute("SET ROLE dicom_deid_reviewer")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            asked.execute("SELECT * FROM mapping")
