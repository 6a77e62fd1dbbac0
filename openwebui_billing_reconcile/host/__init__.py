"""The host: the only package that reaches into `open_webui`, and all SQL on its tables."""
