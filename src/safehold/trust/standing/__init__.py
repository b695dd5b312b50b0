"""What the standards in force demand: values in, verdict out, no files and no settings."""
