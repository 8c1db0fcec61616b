"""What people have of a training that came out low -> its differences from a recipe, and what each is worth."""
