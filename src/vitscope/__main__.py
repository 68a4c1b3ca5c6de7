"""``python -m vitscope``: the same as the ``vitscope`` command."""

from vitscope.cli.main import main

if __name__ == "__main__":
    main()
