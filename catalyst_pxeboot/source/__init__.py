"""What a live image holds: a livecd-stage2 folder or an ISO."""
