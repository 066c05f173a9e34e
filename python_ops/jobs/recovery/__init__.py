"""Disaster recovery: snapshots of the lake in another folder, bucket or region, and their restore.

A snapshot is a manifest of files in a store. Snapshots share files, so an unchanged table adds none.
See docs/runbooks/dr_restore.md.
"""
