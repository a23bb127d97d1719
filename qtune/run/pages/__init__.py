"""report.html: a run, or several side by side, as one page that needs no other file. No torch."""
