"""Configuration: every number of a model, read strictly from configuration.json.

Knows the file's layout and the published folders' layout. Knows no part: which options a part takes stands in the
part's own signature, and the catalogue checks it.
"""
