"""A procedural table-top world whose every edit has an exact truth."""
