"""One file per on-disk layout: which images it has, what they are called, and the files beside them."""
