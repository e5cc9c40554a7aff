"""Places of text grow by what is found, and count objects that agree with them."""

from dicom_deid.database.text_layouts import list_layouts, record_layouts


def test_places_grow_and_start_the_count_anew(database) -> None:
    project = database.project("p", create=True)
    connection, criteria = database.connection, "equals Modality US"

    def record(*objects: list[tuple[int, int, int, int]]) -> tuple[int, int, list[list[int]]]:
        record_layouts(connection, project.project_id, [(criteria, places) for places in objects], ())
        (found,) = list_layouts(connection, "p")
        return found.objects, found.agreeing, found.places

    assert record([(10, 10, 60, 20)]) == (1, 0, [[10, 10, 60, 20]])
    assert record([(12, 11, 63, 20)], [(10, 10, 30, 20)]) == (3, 2, [[10, 10, 60, 20]])
    assert record([(40, 10, 90, 20)]) == (4, 0, [[10, 10, 90, 20]])
    assert record([(0, 200, 50, 220), (10, 10, 20, 20)]) == (5, 0, [[10, 10, 90, 20], [0, 200, 50, 220]])
    label = list_layouts(connection, "p")[0].label
    assert record([(0, 200, 50, 220)])[1] == 1
    record_layouts(connection, project.project_id, [], {label})
    (found,) = list_layouts(connection, "p")
    assert (found.agreeing, found.unlearned_at is None) == (0, False)
