"""What replicas keep on disk so that the next one starts faster. All of it may be deleted at any time.

Nothing in here is needed: where the folder is missing, full, read-only or damaged, a replica starts without it.
"""
