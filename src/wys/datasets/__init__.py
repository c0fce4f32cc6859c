"""Posed photographs from files: readers, one scene frame for all, camera paths and a way out."""
