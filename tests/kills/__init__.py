"""Kills, full disks and other disturbances at random moments: nothing that was saved is lost, doubled or unreadable."""
