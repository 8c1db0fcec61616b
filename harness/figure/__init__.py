"""`Table` -> a figure.  The only home of matplotlib, imported when something is drawn.  Same input, same bytes."""
