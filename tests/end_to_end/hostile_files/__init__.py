"""Files that nobody means well with. Each table maps what is wrong, after the promise that it tries, to a Row."""
