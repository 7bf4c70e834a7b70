"""The numbered statements of the specification (section 14) as checks that run over the wire against any server.

`landline conformance` is the command. Nothing of the server is imported here: what is checked is what goes over the
wire. The checks themselves are in one module per group of statements; `suite.py` lists them.
"""
