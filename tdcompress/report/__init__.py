"""Records become what people read: tables, plots, report.md, report.html and report.json. Nothing here imports torch."""
