"""What every room may use: errors, files, words. Imports nothing of the project."""
