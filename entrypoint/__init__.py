"""From environment and mounted Secrets to a running pgpool-II.

Data flows one way, each step a module:

    sources → settings → model → render → publish → exec

`pipeline` strings the first four together and changes nothing; `boot` adds the checks of the machine, publishes and
becomes pgpool. The sidecar imports the same pipeline, so both always render the same files.
"""

__version__ = "0.1.0"
