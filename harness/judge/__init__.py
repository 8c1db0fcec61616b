"""`Spec`, `Plan`, `Result`s -> tables, a verdict for each cell, and what a table says as a whole."""
