"""Check everything that a run needs, before the first run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.operators.arguments import check_conf
from dicom_deid.operators.lineage import run_lineage
from dicom_deid.operators.plan import DicomPlanOperator

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context


class DicomCheckOperator(DicomPlanOperator):
    """Check recipe, extras, connections, keys, database and object stores of a run; log one line per check.

    Takes the parameters of `DicomPlanOperator`. Small objects are written to the destination and deleted; no run is
    created.
    """

    def run_task(self, context: Context) -> dict[str, str]:  # type: ignore[override]
        """Run the checks and return the result of each by its name.

        Raises
        ------
        ConfigurationError
            A check failed. All others were run as well.
        """
        from dicom_deid.pipeline.check import check_run

        check_conf(context)
        results = list(check_run(self.configuration(context), lambda: self.connections))
        for result in results:
            (self.log.error if result.problem else self.log.info)("%s", result)
        failed = [result.name for result in results if result.problem]
        if failed:
            raise ConfigurationError(f"{len(failed)} of {len(results)} checks failed: {'; '.join(failed)}. See above.")
        return {result.name: result.note or "OK" for result in results}

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the source; no data set is written."""
        return run_lineage(self._source_url, None)
