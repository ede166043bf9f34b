"""One file per data set: its folders, names and lists, its published counts and its protocol."""
