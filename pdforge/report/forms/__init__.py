"""The forms of a report: one file a form."""
