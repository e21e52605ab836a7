"""Makes model packages of what others publish: folders, repositories of a hub, checkpoints."""
