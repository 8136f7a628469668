"""Keeps what pgpool serves equal to what the Secrets say, with the entrypoint's own pipeline."""
