"""Other images' variables, translated: a layer in front of the settings.

Each image says, in words of its own, what its pgpool.conf is to hold. So each of the two tables (`bitnami`,
`official`) leads to parameters of pgpool.conf, and `native` leads from there to our settings, once for both: what
pgpool.conf cannot have here becomes the setting that owns it, or a warning that says what to do.
"""
