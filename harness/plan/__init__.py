"""`Spec`s -> `Plan`: which distinct jobs fill the cells of some tables, and what stops the others."""
