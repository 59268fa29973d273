"""What every room needs: errors, the terminal, secrets, the environment, files."""
