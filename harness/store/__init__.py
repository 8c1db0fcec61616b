"""`Result`s and predictions <-> files in a folder of runs, and which result counts for a cell."""
