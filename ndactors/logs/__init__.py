"""The log process: reads what containers write, keeps it, answers. Nothing that it does holds up an app or the daemon."""
