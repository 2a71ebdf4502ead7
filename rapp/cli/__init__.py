"""The `rapp` command: typer, one short file a command group, no logic of its own."""
