"""Results now against a baseline or the published values -> pass, fail, or not judged."""
