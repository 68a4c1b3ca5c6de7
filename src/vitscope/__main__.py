"""``python -m vitscope``: the same as the ``vitscope`` command."""

from vitscope.cli import main

if __name__ == "__main__":
    main()
