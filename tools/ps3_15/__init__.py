"""From PS3.15 Annex E to recipes: ``python -m tools.ps3_15`` writes the profile's recipes and the conformance table.

Table E.1-1 is the one that the package itself ships; ``e3_4_1_structured_content.csv`` is Table E.3.4-1.
The types that PS3.3 gives to the attributes whose action depends on them ship with the package too; the module
`element_types` says where they come from.
"""
