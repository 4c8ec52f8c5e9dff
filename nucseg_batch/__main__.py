"""`python -m nucseg_batch` is the same as `nucseg-batch`."""

from nucseg_batch.cli.main import main

if __name__ == "__main__":
    main()
