"""The subcommands of ``llava``, one file each: its flags, and the call that does the work."""
