"""The `opengrit` command. May import every floor. Begin with `app.py`; each command is a short file of its own."""
