"""What fails in CI: `check` and `baseline`, `ab`, and the comment of a pull request."""
