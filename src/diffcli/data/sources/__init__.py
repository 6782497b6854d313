"""Where images come from before they are prepared: one file per dataset."""
