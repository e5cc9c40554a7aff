"""Fields of the trigger forms, and the operator arguments made of them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import Param

from dicom_deid.operators.arguments import LIMIT_MAXIMUM

if TYPE_CHECKING:
    from airflow.sdk import DAG

_PROFILE = "ps3.15-"
_BASIC = f"{_PROFILE}basic"
_DEVICES = "devices"
_URL = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
_PREFIX = r"^[^/].*$"
# Fields without a section are at the top of the form, and open.
_PLACES, _POLICIES, _SCOPE, _AUDIT = "Project and quarantine", "Policies", "Scope and limits", "Audit"

SETTINGS = (
    "private_elements",
    "residuals",
    "free_text",
    "pixel_risk",
    "check_masks",
    "layout_objects",
    "overlays",
    "documents",
    "faces",
)
"""Fields that are fields of `Settings`."""

PLAN_ARGUMENTS = (
    "preview",
    "source",
    "prefix",
    "destination",
    "quarantine",
    "project",
    "create_project",
    "patient_key",
    "profile_options",
    "cohort",
    "select",
    "exclude",
    "limit",
    "retry_quarantined",
    "reason",
)
"""Fields that are parameters of `DicomPlanOperator` of the same name."""


def shipped_recipes() -> list[str]:
    """Return the names of the shipped recipes that can be used alone: no PS3.15 options, no device catalogue."""
    additions = {f"{_PROFILE}{option}" for option in profile_options()} | {_DEVICES}
    return [name for name in _recipe_files() if name not in additions]


def profile_options() -> list[str]:
    """Return the names of the PS3.15 options."""
    return [name.removeprefix(_PROFILE) for name in _recipe_files() if name.startswith(_PROFILE) and name != _BASIC]


def own_recipes() -> dict[str, str]:
    """Return the names of the site's own recipes by path: the ``*.dicom`` files in ``[dicom_deid] recipes_folder``."""
    folder = conf.get("dicom_deid", "recipes_folder", fallback="")
    return {str(path): path.stem for path in sorted(Path(folder).glob("*.dicom"))} if folder else {}


def _recipe_files() -> list[str]:
    # Names only: importing the engine would cost the DAG processor a second at each parse.
    names = (file.name for file in files("dicom_deid.recipes").iterdir())
    return sorted(name.removesuffix(".dicom") for name in names if name.endswith(".dicom"))


def run_params(
    *, required: bool = True, release: bool = False, preview: bool = True, cohort: bool = False
) -> dict[str, Param]:
    """Return the fields of a form that starts a run.

    Parameters
    ----------
    required
        Source and destination must be given. False for a DAG with a schedule, whose params need defaults.
    release
        Add the field `release_to`, the location of approved objects.
    preview
        Add the switch for a dry run.
    cohort
        Add the field `cohort`, the location of a cohort list.
    """
    fields = {
        **(preview_param() if preview else {}),
        **source_params(required=required),
        "destination": _url(
            "Destination", "Where de-identified objects are written. Never inside the source.", required
        ),
    }
    if cohort:
        fields |= cohort_param()
    if release:
        fields["release_to"] = _url(
            "Release to", "Where the objects are copied after approval. Until then they are at the destination.", True
        )
    return {**fields, **rule_params(), **_place_params(), **_scope_params(), **_audit_params()}


def check_params() -> dict[str, Param]:
    """Return the fields of the form that checks a run before it is started."""
    fields = run_params(preview=False)
    names = ("source", "destination", "recipe", "profile_options", *SETTINGS, "project", "quarantine")
    return {name: fields[name] for name in names}


def run_arguments(dag: DAG) -> dict[str, Any]:
    """Return the arguments of `DicomDeidTaskGroup` that a DAG's form fills in.

    Parameters
    ----------
    dag
        A DAG whose `params` come from `run_params`.
    """
    arguments: dict[str, Any] = {name: dag.param(name) for name in PLAN_ARGUMENTS if name in dag.params}
    if "max_quarantine_ratio" in dag.params:
        arguments["max_quarantine_ratio"] = dag.param("max_quarantine_ratio")
    return arguments | rule_arguments(dag)


def rule_arguments(dag: DAG) -> dict[str, Any]:
    """Return the arguments `recipes` and `settings` that a DAG's form fills in."""
    return {"recipes": dag.param("recipe"), "settings": {name: dag.param(name) for name in SETTINGS}}


def withdraw_params() -> dict[str, Param]:
    """Return the fields of the form that withdraws objects. None takes an identifier: Airflow stores and shows them."""
    return {
        "withdrawal_list": _url(
            "List of what to withdraw",
            "CSV file of kind (patient, accession, study, series, object) and value, original or pseudonym; "
            "`s3://bucket/key`, read with the source's connection. Or enter the values on the page "
            "*De-identification, Withdrawals*, which keeps them out of Airflow.",
            False,
        ),
        "reason": Param(
            type="string",
            title="Reason",
            description_md="Recorded in the audit with your user name. Do not enter patient identifiers.",
            minLength=1,
            maxLength=500,
            format="multiline",
        ),
        **preview_param("Dry run", "Count what would be deleted; change nothing."),
        "decision": Param(
            None,
            type=["null", "integer"],
            title="Decision",
            description_md="Withdraw what this quarantine decision released; its number on the page *Decisions*.",
            minimum=1,
            section=_SCOPE,
        ),
        "deleted_sources": Param(
            False,
            type="boolean",
            title="Deleted sources",
            description_md="Withdraw released objects whose source object is gone, as the last whole run found.",
            section=_SCOPE,
        ),
        "withdrawal_id": _withdrawal("Continue", "Id of a withdrawal that was begun, whose copies are to be deleted."),
        "undo": _withdrawal("Undo", "Id of a finished withdrawal to lift: the next run writes its objects again."),
        "project": _place_params()["project"],
    }


def withdraw_arguments(dag: DAG) -> dict[str, Any]:
    """Return the arguments of `DicomWithdrawOperator` that a DAG's form fills in."""
    return {name: dag.param(name) for name in withdraw_params()}


def _withdrawal(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        title=title,
        description_md=description,
        minLength=36,
        maxLength=36,
        section=_SCOPE,
    )


def source_params(*, required: bool = True) -> dict[str, Param]:
    """Return the fields that select the objects to read."""
    return {
        "source": _url(
            "Source", "Location of the originals: `s3://bucket` or `s3://bucket/prefix`. It is only read.", required
        ),
        "prefix": Param(
            None,
            type=["null", "string"],
            title="Prefix",
            description_md="Only objects whose keys start with this, below the source; for example `2024/05/`.",
            pattern=_PREFIX,
            section=_SCOPE,
        ),
        "select": _criteria(
            "Select",
            "Only objects for which **every** line holds, for example `equals Modality CT || equals Modality MR` and "
            "`between StudyDate 20190101 20201231`. Empty: all objects.",
        ),
        "exclude": _criteria(
            "Exclude",
            "Leave out objects for which **any** line holds, for example `contains ImageType LOCALIZER`. They are "
            "recorded as excluded, not quarantined.",
        ),
    }


def partition_params() -> dict[str, Param]:
    """Return the fields that define the partition of a scheduled or backfilled run."""
    return {
        "partition": Param(
            "last-modified",
            type="string",
            title="Partition by",
            description_md="Which objects belong to the period of a run. A run without a period processes all objects.",
            enum=["last-modified", "prefix"],
            values_display={
                "last-modified": "time of last modification",
                "prefix": "key prefix of the period",
            },
            section=_SCOPE,
        ),
        "prefix_format": Param(
            "%Y/%m/",
            type="string",
            title="Prefix of a period",
            description_md="Key prefix of a period below the source, in strftime format: `%Y/%m/` gives `2024/05/`.",
            pattern="%",
            section=_SCOPE,
        ),
    }


def rule_params() -> dict[str, Param]:
    """Return the fields that choose the recipe and the policies."""
    return {
        "recipe": recipe_param("Recipe", "The de-identification rules: a shipped recipe, or one of your own."),
        "profile_options": Param(
            None,
            type=["null", "array"],
            title="Options of PS3.15",
            description_md="Only with the recipe `ps3.15-basic`. They override policies below where PS3.15 says so.",
            examples=profile_options(),
            items={"type": "string", "enum": profile_options()},
            uniqueItems=True,
            section=_POLICIES,
        ),
        "private_elements": _choice(
            "safe",
            "Private elements without a rule",
            "Elements of odd groups, defined by vendors; they may hold names.",
            {
                "remove": "Remove all",
                "safe": "Keep those that PS3.15 lists as safe",
                "keep": "Keep all (as the desktop application does)",
            },
        ),
        "residuals": _choice(
            "quarantine",
            "Residual identifiers",
            "What to do with an original value that the rules removed and that is also found elsewhere in the object.",
            {
                "quarantine": "Quarantine the object; redact the value where it is a whole identifier",
                "remove-element": "Remove the element that holds it",
                "redact-token": "Replace the words that match",
                "report": "Only report it",
                "off": "Do not search",
            },
        ),
        "free_text": _choice(
            "keep",
            "Descriptions and comments without a rule",
            "Names of relatives and doctors are found by the vocabulary only; the options that clean text choose it.",
            {
                "keep": "Keep them; residual identifiers are treated as chosen above",
                "known-originals": "Redact what is known of the patient",
                "vocabulary": "Also mask words that no list, standard or site knows",
            },
        ),
        "pixel_risk": _choice(
            "quarantine",
            "Pixels that may show identifiers",
            "For kinds of object that often have burned-in text, if no pixel rule covers them.",
            {
                "quarantine": "Quarantine the object",
                "ocr": "Find and blank text (needs the extra `ocr`)",
                "allow": "Accept the pixels as they are",
            },
        ),
        "check_masks": _choice(
            "decisions",
            "Text outside masks",
            "Search for text that masks and allowances leave visible, and quarantine the object again.",
            {
                "decisions": "Where a reviewer has decided for a device or a group (needs the extra `ocr`)",
                "all": "Also where a pixel rule of the recipe masks (needs the extra `ocr`)",
                "none": "Do not search: new text is released",
            },
        ),
        "layout_objects": Param(
            20,
            type="integer",
            title="Objects that teach where a device shows text",
            description_md="If text is found and blanked: once so many objects in a row of a device had text in the "
            "same places only, later runs blank these and search 2 % of the objects. 0: search all.",
            minimum=0,
            section=_POLICIES,
        ),
        "overlays": _choice(
            "keep",
            "Overlay planes",
            "Group 60xx: drawings and text over the image.",
            {"keep": "Keep them; blank them with the pixels", "remove": "Remove them"},
        ),
        "documents": _choice(
            "quarantine",
            "Documents and structured content",
            "Encapsulated documents (PDF, CDA) and structured content that no rule cleans.",
            {"quarantine": "Quarantine the object", "allow": "Accept them as they are"},
        ),
        "faces": _choice(
            "report",
            "Images that can show a face",
            "CT and MR series whose geometry and body part may let a face be reconstructed.",
            {"report": "Mark them in the audit", "hold": "Quarantine the object", "allow": "Do not look for them"},
        ),
    }


def recipe_param(title: str, description: str, *, optional: bool = False) -> Param:
    """Return a drop-down of the shipped recipes and the site's own."""
    own = {path: f"{name} (own)" for path, name in own_recipes().items()}
    words = {name: name for name in shipped_recipes()} | own
    choices = {f"{name}, {_DEVICES}": f"{word}, with the device catalogue" for name, word in words.items()} | words
    names: list[Any] = list(choices)
    return Param(
        None if optional else f"desktop, {_DEVICES}",
        type=["null", "string"] if optional else "string",
        title=title,
        description_md=description,
        enum=[None, *names] if optional else names,
        values_display=choices,
    )


def cohort_param(*, optional: bool = False) -> dict[str, Param]:
    """Return the field for the location of a cohort list."""
    return {
        "cohort": Param(
            None if optional else "",
            type=["null", "string"] if optional else "string",
            title="Cohort list",
            description_md="CSV or Parquet file, `s3://bucket/key`, with one or more of the columns PatientID, "
            "IssuerOfPatientID, AccessionNumber, StudyInstanceUID, SeriesInstanceUID, SourceKey, and optionally "
            "Pseudonym. Only objects that a line names are processed; the source must be indexed.",
            minLength=1,
            section=_SCOPE if optional else None,
        )
    }


def sample_param() -> dict[str, Param]:
    """Return the field for the size of a sample."""
    return {
        "sample": Param(
            10,
            type="integer",
            title="Objects per modality",
            description_md="Number of objects of each modality in the sample.",
            minimum=1,
            maximum=1000,
            section=_SCOPE,
        ),
    }


def preview_param(
    title: str = "Preview only (dry run)",
    description: str = "Read a sample and report what each rule would do. Writes nothing.",
) -> dict[str, Param]:
    """Return the switch that turns a run into a preview."""
    return {"preview": Param(False, type="boolean", title=title, description_md=description)}


def _place_params() -> dict[str, Param]:
    return {
        "project": Param(
            None,
            type=["null", "string"],
            title="Project",
            description_md="Pseudonyms are consistent inside a project and cannot be linked across projects. Empty: "
            "the project of the connection.",
            maxLength=100,
            section=_PLACES,
        ),
        "create_project": Param(
            False,
            type="boolean",
            title="Create the project",
            description_md="Create the project if it does not exist. Off: a name that does not exist is an error.",
            section=_PLACES,
        ),
        "patient_key": Param(
            None,
            type=["null", "string"],
            title="Patient key",
            description_md="For a new project: whether a PatientID identifies a patient alone, or with its "
            "IssuerOfPatientID. Empty: the project's own.",
            enum=[None, "id", "id-and-issuer"],
            values_display={"id": "PatientID", "id-and-issuer": "PatientID and its issuer"},
            section=_PLACES,
        ),
        "quarantine": Param(
            None,
            type=["null", "string"],
            title="Copies of quarantined objects",
            description_md="Where quarantined originals are copied: one of the quarantine locations of the "
            "`dicom_deid` connection, **not in the destination's bucket**, because they hold PHI. Empty: they are "
            "recorded but not copied.",
            pattern=_URL,
            section=_PLACES,
        ),
    }


def _scope_params() -> dict[str, Param]:
    return {
        "limit": Param(
            None,
            type=["null", "integer"],
            title="Maximum number of objects",
            description_md="Empty: all objects.",
            minimum=1,
            maximum=LIMIT_MAXIMUM,
            section=_SCOPE,
        ),
        "retry_quarantined": Param(
            False,
            type="boolean",
            title="Retry quarantined objects",
            description_md="Also process objects that were quarantined under the same rules before.",
            section=_SCOPE,
        ),
        "max_quarantine_ratio": Param(
            0.1,
            type="number",
            title="Accepted quarantine ratio",
            description_md="The run gets a warning if more than this part of its objects (0 to 1) is quarantined.",
            minimum=0,
            maximum=1,
            section=_SCOPE,
        ),
    }


def _criteria(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        title=title,
        description_md=f"{description} Do not enter patient identifiers.",
        maxLength=10_000,
        format="multiline",
        section=_SCOPE,
    )


def _audit_params() -> dict[str, Param]:
    return {
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description_md="Recorded in the audit with your user name. Do not enter patient identifiers.",
            maxLength=500,
            format="multiline",
            section=_AUDIT,
        ),
    }


def _url(title: str, description: str, required: bool) -> Param:
    if required:
        return Param(type="string", title=title, description_md=description, pattern=_URL)
    return Param(None, type=["null", "string"], title=title, description_md=description, pattern=_URL)


def _choice(default: str, title: str, description: str, words: dict[str, str]) -> Param:
    return Param(
        default,
        type="string",
        title=title,
        description_md=description,
        enum=list(words),
        values_display=words,
        section=_POLICIES,
    )
