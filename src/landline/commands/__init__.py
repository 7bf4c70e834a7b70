"""The commands of `landline`, by subject. A command imports what only it needs when it runs: see `landline.cli`."""
