"""The `pdforge` command: `app.py` dispatches, one file a command, one file a way to render."""
