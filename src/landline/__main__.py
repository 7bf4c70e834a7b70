"""`python -m landline` is the `landline` command."""

from landline.cli import main

main()
