"""Text from templates: configurations, pages, scripts, server settings."""
