"""python -m vivavoce"""

from vivavoce.cli import main

if __name__ == "__main__":
    main()
