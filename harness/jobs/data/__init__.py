"""What the user has on disk -> images with labels, read and preprocessed."""
