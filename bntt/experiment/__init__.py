"""From a YAML file to runs, without torch: the schema, the options that plug-ins declare, and hashes of their code."""
