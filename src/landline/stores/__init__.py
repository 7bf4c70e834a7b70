"""Where conversation logs live. Every store implements `landline.ports.Store` and passes one contract suite."""
