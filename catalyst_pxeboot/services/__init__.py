"""Child processes, their logs, network interfaces and the web server."""
