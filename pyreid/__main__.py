"""``python -m pyreid`` prints versions, compiled libraries, CPU features and devices."""

from pyreid._build_info import info

if __name__ == "__main__":
    print(info())
