"""Disaster recovery: snapshots of the lake in another folder, bucket or region, and the way back.

A snapshot is a manifest of files in a store. Snapshots share files, so an unchanged table costs no data.
See docs/runbooks/dr_restore.md.
"""
