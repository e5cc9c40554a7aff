"""What a recipe would do to a sample, before anyone commits to a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.operators.lineage import between
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.sampling import preview

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.pipeline.configuration import RunConfiguration


class DicomPreviewOperator(DicomPlanOperator):
    """Reports what each rule would do to a sample of the source, and writes nothing anywhere.

    With `compare_with`, the sample is gone through under both recipes, and the report names the elements that they
    treat differently. The report is logged and returned; it holds tags, rules and counts, and never a value.

    Parameters
    ----------
    sample
        Objects of each modality that are looked at.
    compare_with
        A second recipe.
    """

    template_fields: Sequence[str] = (*DicomPlanOperator.template_fields, "sample", "compare_with")

    def __init__(self, *, sample: int = 10, compare_with: str | None = None, **kwargs: Any) -> None:
        # Where results would go says nothing here, and the configuration must have a place.
        kwargs.setdefault("destination", "s3://nowhere")
        super().__init__(**kwargs)
        self.sample = sample
        self.compare_with = compare_with

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Look at the sample and report.

        Raises
        ------
        ConfigurationError
            Recipe, connections or parameters are wrong; not retried.
        ObjectStoreError
            The source is away.
        """
        configuration = self.configuration(context)
        return preview(
            self.log,
            configuration,
            self.source_connection,
            wanted=int(self.sample),
            other=self._other(configuration, self.compare_with) if self.compare_with else None,
        )

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the place that is read; nothing is written."""
        return between(self._place, None)

    def _other(self, configuration: RunConfiguration, recipe: str) -> RunConfiguration:
        from dicom_deid.pipeline.configuration import RunConfiguration
        from dicom_deid.pipeline.recipes import recipes_and_settings

        places = {name: getattr(configuration, name) for name in ("source", "destination", "project")}
        return RunConfiguration.from_mapping(places | recipes_and_settings([recipe], None, self.settings))
