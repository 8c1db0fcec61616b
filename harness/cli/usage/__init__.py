"""How the commands are used: their options and arguments, their help, and what a shell completes."""
