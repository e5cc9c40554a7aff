"""Report what a recipe would do to a sample of the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.links import PREVIEW_KEY
from dicom_deid.operators.arguments import check_conf, whole_number
from dicom_deid.operators.lineage import run_lineage
from dicom_deid.operators.plan import SAMPLE, DicomPlanOperator

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.pipeline.configuration import RunConfiguration


class DicomPreviewOperator(DicomPlanOperator):
    """Report what each rule would do to a sample of the source; nothing is written.

    With `compare_with`, the sample is processed under both recipes, and the report names the elements that they treat
    differently. The report is logged and shown in the tab *De-identification* of the DAG run; it holds tags, rules and
    counts, never a value.

    Parameters
    ----------
    sample
        Objects per modality.
    compare_with
        A second recipe.
    """

    template_fields: Sequence[str] = (*DicomPlanOperator.template_fields, "sample", "compare_with")

    def __init__(self, *, sample: int | str = SAMPLE, compare_with: str | None = None, **kwargs: Any) -> None:
        # A configuration needs a destination; a preview writes none.
        kwargs.setdefault("destination", "s3://nowhere")
        super().__init__(**kwargs)
        self.sample = sample
        self.compare_with = compare_with

    def run_task(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Process the sample and return its counts.

        Raises
        ------
        ConfigurationError
            Recipe, connections or parameters are wrong.
        ObjectStoreError
            The source is unavailable.
        """
        from dicom_deid.pipeline.sample import describe_sample

        check_conf(context)
        sample = whole_number("sample", self.sample, maximum=1000) or SAMPLE
        configuration = self.configuration(context)
        self._log_configuration(configuration)
        other = self._other(configuration, self.compare_with) if self.compare_with else None
        report = self._sample(configuration, sample, other)
        for line in describe_sample(report):
            self.log.info(line)
        context["ti"].xcom_push(key=PREVIEW_KEY, value=report)
        return {"objects": report["objects"], "quarantined": report["quarantined"]}

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the source; nothing is written."""
        return run_lineage(self._source_url, None)

    def _other(self, configuration: RunConfiguration, recipe: str) -> RunConfiguration:
        from dicom_deid.pipeline.configuration import RunConfiguration
        from dicom_deid.pipeline.recipes import recipes_and_settings

        same = {name: getattr(configuration, name) for name in ("source", "destination", "project")}
        return RunConfiguration.from_mapping(same | recipes_and_settings([recipe], None, self.settings))
