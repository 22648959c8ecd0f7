"""`python -m msc_edge` is the same as `msc-edge`."""

from msc_edge.cli import main

if __name__ == "__main__":
    main()
