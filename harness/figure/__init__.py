"""`Table` -> a figure.  The only home of matplotlib, imported when something is drawn.  Same input, same bytes."""

import logging

# Without a home it would say where its cache is, in several lines.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
