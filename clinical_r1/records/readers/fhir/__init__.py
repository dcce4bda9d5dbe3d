"""FHIR R4 (and R5 where it is the same): bundles, NDJSON of resources or of bundles, bulk export and Synthea folders.

A table-driven walk of our own: fhir.resources 8.3 refuses all fifteen R4 bundles of a hospital's kind as R5 and one
more
as R4B (one key too many refuses the whole bundle), at 9,700 resources/s; see docs/log.md.
"""

from clinical_r1.records.readers.fhir.cases import is_fhir, read_fhir

__all__ = ["is_fhir", "read_fhir"]
