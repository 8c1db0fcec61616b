"""What fails in CI: `check` and `baseline`, `ab`, and what a pull request is told."""
