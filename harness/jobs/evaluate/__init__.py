"""Images and weights -> predictions, and the metrics that are derived from them."""
