"""Features of the single events of recordings, for methods that are not networks: one file per feature.

A feature is written twice. The module holds a reference in numpy that is meant to be read. The C++ source beside it,
of the same name, is compiled by `bntt.features.native` and used once it agreed with the reference.
"""
