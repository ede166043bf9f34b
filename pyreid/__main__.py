"""``python -m pyreid`` prints versions, libraries, CPU features and devices; with arguments it is ``pyreid``."""

import sys

if __name__ == "__main__":
    if len(sys.argv) > 1:
        from pyreid.cli.main import main

        main()
    else:
        from pyreid._build_info import info

        print(info())
