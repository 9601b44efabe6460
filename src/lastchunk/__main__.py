"""`python -m lastchunk`: the command line."""

from lastchunk.cli import main

if __name__ == "__main__":
    main()
